package store

import (
	"sync"

	"github.com/core-tools/hsu-master/identity"
)

// ownRecord is the database's own record, and the directory that it belongs to.
//
// Invariant: record is the record as stored in the file, except in an opener, while a commit of it is under way, and
// from a start on a disk that cannot be written until the first repair.
type ownRecord struct {
	dir   string
	found Meta // the record as Open found it

	mu     sync.Mutex
	record Meta
	dirID  identity.FileID // of dir, as last read
}

func newOwnRecord(dir string, id identity.FileID) *ownRecord { return &ownRecord{dir: dir, dirID: id} }

func (o *ownRecord) get() Meta {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.record
}

func (o *ownRecord) set(record Meta) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.record = record
}

// currentDir returns the current device and inode of the directory, or the last known ones if it cannot be read.
func (o *ownRecord) currentDir() identity.FileID {
	id, err := DirID(o.dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.dirID = id
	}
	return o.dirID
}

// lastDir returns the last known device and inode of the directory.
func (o *ownRecord) lastDir() identity.FileID {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dirID
}
