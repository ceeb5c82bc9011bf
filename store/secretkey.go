package store

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// ErrKeyNotKept is returned by [DB.SecretKey] together with a key that could not be written.
var ErrKeyNotKept = errors.New("the next master will have another key")

// SecretKey returns the key of the environments in the records, from the file secret.key. If there is none, SecretKey
// makes one durable first. On a full disk it returns a key all the same, with an error that wraps [ErrKeyNotKept]: the
// environments that are recorded with it cannot be compared by the next master.
func (db *DB) SecretKey() (records.SecretKey, error) {
	key, err := statedir.ReadSecretKey(db.dir.Path)
	if key != nil {
		// The key of root must not belong to another user: that user could choose it.
		if err := safefile.CheckProgram(filepath.Join(db.dir.Path, statedir.SecretKeyName)); err != nil {
			return nil, fmt.Errorf("secret key: %w", err)
		}
	}
	if err != nil && !errors.Is(err, statedir.ErrSecretKeyLost) || key != nil {
		return key, err
	}
	key = statedir.NewSecretKey()
	if err := statedir.WriteSecretKey(db.dir.Ops, db.dir.Path, key); err != nil {
		return key, errors.Join(err, ErrKeyNotKept)
	}
	return key, nil
}

// ReadSecretKey returns the key that the next master of the state in dir will have: the one in the file secret.key,
// otherwise a new one, which it does not write.
func ReadSecretKey(dir string) (records.SecretKey, error) {
	key, err := statedir.ReadSecretKey(dir)
	if err != nil && !errors.Is(err, statedir.ErrSecretKeyLost) || key != nil {
		return key, err
	}
	return statedir.NewSecretKey(), nil
}
