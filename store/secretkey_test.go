package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
)

func TestSecretKeyIsMadeOnceForTheMasterAlone(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	first, err := db.SecretKey()
	if err != nil || len(first) != records.SecretKeySize {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	info, err := os.Stat(filepath.Join(dir, "secret.key"))
	if err != nil || info.Mode() != 0o600 || info.Size() != records.SecretKeySize {
		t.Errorf("the file is %v, %v, want 32 bytes with the mode 0600", info, err)
	}
	if again, err := db.SecretKey(); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the second call returns another key, %v", err)
	}
	if read, err := ReadSecretKey(dir); err != nil || !bytes.Equal(first, read) {
		t.Errorf("another process reads another key, %v", err)
	}
	var backup bytes.Buffer
	if err := db.WriteBackup(&backup); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(backup.Bytes(), first) {
		t.Error("a backup contains the key")
	}
}

func TestSecretKeyThatCannotBeTrusted(t *testing.T) {
	for want, spoil := range map[string]func(path string) error{
		"a symbolic link": func(path string) error {
			return errors.Join(os.Rename(path, path+"2"), os.Symlink("secret.key2", path))
		},
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		dir := t.TempDir()
		db := openTest(t, dir, Options{})
		if _, err := db.SecretKey(); err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(dir, "secret.key")); err != nil {
			t.Fatal(err)
		}
		for _, read := range []func() (records.SecretKey, error){
			db.SecretKey, func() (records.SecretKey, error) { return ReadSecretKey(dir) },
		} {
			if key, err := read(); err == nil || key != nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d bytes, %v, want that it is refused: %s", len(key), err, want)
			}
		}
		backup := filepath.Join(dir, "backup")
		if err := backUpTo(db, backup); err != nil {
			t.Fatal(err)
		}
		problems, err := CheckLive(dir, backup)
		if err != nil || problems.OK() || !strings.Contains(fmt.Sprint(problems), "secret.key") {
			t.Errorf("the check finds %v, %v, want the fault of secret.key", problems, err)
		}
	}
}

// A file of another size is no key, and a full disk does not keep the master from its workers.
func TestSecretKeyIsMadeAnewIfItIsLost(t *testing.T) {
	dir, full := t.TempDir(), errors.New("no space left on device")
	failing := ""
	db := openSeams(t, dir, Options{}, seams{steps: migrations.All, at: func(moment string) error {
		if moment == failing {
			return full
		}
		return nil
	}})
	failing = string(crashpoint.SecretKey.Sync())
	first, err := db.SecretKey()
	if !errors.Is(err, ErrKeyNotKept) || !errors.Is(err, full) || len(first) != records.SecretKeySize {
		t.Errorf("%d bytes, %v, want a key that is not kept", len(first), err)
	}
	failing = ""
	second, err := db.SecretKey()
	if err != nil || bytes.Equal(first, second) {
		t.Errorf("the key that could not be written is kept, %v", err)
	}
	put(t, db, records.PutWorker(records.Worker{
		ID: "worker-0", Unit: "worker", Desired: records.DesiredRunning, Status: records.StatusStopped,
		SecretKey: second.ID(), EnvironmentMAC: second.MAC("worker", []string{"A=b"}),
	}))
	if err := os.Truncate(filepath.Join(dir, "secret.key"), 12); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(dir, "backup")
	if err := backUpTo(db, backup); err != nil {
		t.Fatal(err)
	}
	problems, err := CheckLive(dir, backup)
	if text := fmt.Sprint(problems); err != nil || !problems.OK() || !strings.Contains(text, "it has 12 bytes") ||
		!strings.Contains(text, "environments of 1 workers") {
		t.Errorf("the check finds %v, %v, want notes about a lost key", problems, err)
	}
	third, err := db.SecretKey()
	if err != nil || len(third) != records.SecretKeySize || bytes.Equal(second, third) {
		t.Errorf("%d bytes, %v, want a new key", len(third), err)
	}
	if err := os.Chmod(filepath.Join(dir, "secret.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	fourth, err := db.SecretKey()
	if err != nil || len(fourth) != records.SecretKeySize || bytes.Equal(third, fourth) {
		t.Errorf("%d bytes, %v, want a new key in place of one that others can read", len(fourth), err)
	}
}

// A key of another user is refused by a master that runs as root, and only by that.
func TestSecretKeyOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	want, err := db.SecretKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "secret.key"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if key, err := db.SecretKey(); key != nil || err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("%d bytes, %v, want that it is refused", len(key), err)
	}
	if key, err := ReadSecretKey(dir); err != nil || !bytes.Equal(key, want) {
		t.Errorf("root cannot read it: %v", err)
	}
}
