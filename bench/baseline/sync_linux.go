package baseline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// syncedSize is the size of the file that a Syncer overwrites, and recordSize that of each write: those of a count.
const (
	syncedSize = 8192
	recordSize = 48
)

// Syncer makes one small record after the other durable in a file of its own, each with one write and one fdatasync:
// the least that an acknowledgment costs that must survive a power cut.
type Syncer struct {
	file   *os.File
	number uint64
	record [recordSize]byte
}

// NewSyncer makes the file in dir, with every byte allocated.
func NewSyncer(dir string) (*Syncer, error) {
	f, err := os.OpenFile(filepath.Join(dir, "synced"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(make([]byte, syncedSize))
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Syncer{file: f}, nil
}

// Sync writes the next record, to either half of the file in turn, and returns the time until it was durable.
func (s *Syncer) Sync() (time.Duration, error) {
	s.number++
	binary.BigEndian.PutUint64(s.record[:], s.number)
	started := time.Now()
	if _, err := s.file.WriteAt(s.record[:], int64(s.number%2)*syncedSize/2); err != nil {
		return 0, err
	}
	for {
		err := unix.Fdatasync(int(s.file.Fd()))
		if err == nil {
			return time.Since(started), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("sync %s: %w", s.file.Name(), err)
		}
	}
}

// Close closes the file.
func (s *Syncer) Close() error { return s.file.Close() }
