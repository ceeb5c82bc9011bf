package statedir

import (
	"sync"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
)

// Own is the database's own record, and the directory that it belongs to.
//
// Invariant: record is the record as stored in the file, except in an opener, while a commit of it is under way, and
// from a start on a disk that cannot be written until the first repair.
type Own struct {
	dir   string
	Found records.Meta // the record as Open found it

	mu     sync.Mutex
	record records.Meta
	dirID  identity.FileID // of dir, as last read
}

func NewOwn(dir string, id identity.FileID) *Own { return &Own{dir: dir, dirID: id} }

func (o *Own) Get() records.Meta {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.record
}

func (o *Own) Set(record records.Meta) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.record = record
}

// CurrentDir returns the current device and inode of the directory, or the last known ones if it cannot be read.
func (o *Own) CurrentDir() identity.FileID {
	id, err := ID(o.dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.dirID = id
	}
	return o.dirID
}

// LastDir returns the last known device and inode of the directory.
func (o *Own) LastDir() identity.FileID {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dirID
}
