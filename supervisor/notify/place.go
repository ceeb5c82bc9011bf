package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Place returns the path for the socket of a worker: in the runtime folder, or in a folder for temporary files if that
// path is too long for a socket or a process of the user cannot enter the folders.
func Place(runtimeDir, worker string, uid uint32) (string, error) {
	dir, err := filepath.Abs(runtimeDir)
	if err != nil {
		return "", fmt.Errorf("find the folder for notify sockets: %w", err)
	}
	path := filepath.Join(dir, worker+".notify")
	if len(path)+len(suffix) <= safefile.MaxSocketPath && open(dir, uid) == nil {
		return path, nil
	}
	// The name follows from the runtime folder, so that a master reuses it and two masters do not share it.
	sum := sha256.Sum256([]byte(dir))
	dir = filepath.Join(os.TempDir(), "hsu-notify-"+hex.EncodeToString(sum[:8]))
	if err := makeFolder(dir); err != nil {
		return "", err
	}
	if err := open(dir, uid); err != nil {
		return "", fmt.Errorf("%w: choose a --runtime-dir that user %d can enter", err, uid)
	}
	path = filepath.Join(dir, worker+".notify")
	if len(path)+len(suffix) > safefile.MaxSocketPath {
		return "", fmt.Errorf("the path of the notify socket is over the kernel's limit of %d bytes: choose a shorter "+
			"--runtime-dir or TMPDIR: %s", safefile.MaxSocketPath, path)
	}
	return path, nil
}

// makeFolder makes a folder for sockets unless it is there. It returns an error if the folder, or a link to it, is that
// of a user other than root and this one, who could have anything else found in the place of a socket.
func makeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a folder for notify sockets: %w", err)
	}
	link, err := os.Lstat(dir)
	info, e := os.Stat(dir)
	if err != nil || e != nil || !info.IsDir() || !trusted(link) || !trusted(info) {
		return fmt.Errorf("%s is not a folder of this user: move it away", dir)
	}
	return nil
}

func trusted(info fs.FileInfo) bool {
	owner := ownerOf(info)
	return owner == 0 || int(owner) == os.Geteuid()
}

// Admit lets processes of the user reach the socket at a path that Place has returned to an earlier master: systemd
// sets the mode of the runtime folder again when it starts the next one.
func Admit(path string, uid uint32) error { return open(filepath.Dir(path), uid) }

// remake makes a socket at a path that Place has returned, and its folder if that is gone too.
func remake(path string, uid uint32) (*net.UnixConn, error) {
	dir := filepath.Dir(path)
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	if err := open(dir, uid); err != nil {
		return nil, err
	}
	return listen(path, uid)
}

// open lets processes of the user enter a folder of this master, and returns an error if they cannot: it changes no
// other folder. They cannot list the folder.
func open(dir string, uid uint32) error {
	if int(uid) == os.Geteuid() || uid == 0 {
		return nil
	}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err != nil || !enters(info, uid) {
			return fmt.Errorf("user %d cannot enter %s", uid, at)
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case enters(info, uid):
		return nil
	case !own(info):
		return fmt.Errorf("user %d cannot enter %s", uid, dir)
	}
	return os.Chmod(dir, info.Mode().Perm()|0o011)
}
