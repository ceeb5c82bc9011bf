package store

import (
	"fmt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// settle makes durable what the master before has left, where it was killed or has
// failed. What is read then may be in the kernel's cache alone: written and not
// synced, or so that its sync has failed, after which the kernel takes the pages
// for clean and no further sync would write them. To go on from a meta page that is
// not on the disk would overwrite pages that the one on the disk leads to, and a
// power cut would then leave a damaged file. A file that was renamed may in the
// same way still have its old name on the disk.
//
// So the meta pages are written again, with what they hold. What they lead to is on
// the disk, since it was synced before they were written; the first sync is for a
// file that somebody has copied here. No other file is made, and no space needed.
func (db *DB) settle() error {
	if !db.lock.unsettled {
		return nil
	}
	return db.do(crashpoint.Settle, func() error {
		f := db.handle.file
		metas := make([]byte, 2*db.handle.bolt.Info().PageSize)
		err := datasync(f)
		if err == nil {
			_, err = f.ReadAt(metas, 0)
		}
		if err == nil {
			_, err = f.WriteAt(metas, 0)
		}
		if err == nil {
			err = datasync(f)
		}
		if err == nil {
			err = syncDir(db.dir)
		}
		if err != nil {
			return fmt.Errorf("make %s durable: %w", db.path, err)
		}
		return nil
	})
}
