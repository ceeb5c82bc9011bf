package statedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statefile"
)

// ReadMasterID returns the UUID from the file master-id, or "" if there is no such file.
func ReadMasterID(dir string) (string, error) {
	path := filepath.Join(dir, MasterIDName)
	b, err := statefile.ReadFile(path, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the master id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !records.ValidUUID(id) {
		return "", &statefile.DamagedError{Path: path, Err: fmt.Errorf("%.64q is no UUID", id)}
	}
	return id, nil
}

func WriteMasterID(ops statefile.Ops, dir, id string) error {
	err := ops.Replace(crashpoint.MasterID, filepath.Join(dir, MasterIDName), func(f *os.File) error {
		_, err := io.WriteString(f, id+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("write the master id: %w", err)
	}
	return nil
}
