package statedir

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzMasterID generates the content of the file master-id.
func FuzzMasterID(f *testing.F) {
	id := "0b6ad3ae-2b40-4c5e-9d1c-6f6f1a2b3c4d"
	for _, s := range []string{
		id + "\n", id, strings.ToUpper(id), id[1:], "-" + id[1:], "", strings.Repeat(id, 20), id + "\x00", "\x1b[2J",
		id[:18] + id[19:20] + "-" + id[20:],
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	shape := regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, MasterIDName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := ReadMasterID(dir)
		if err != nil {
			if id != "" || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q beside %q", id, err)
			}
			return
		}
		if !shape.MatchString(id) || !strings.Contains(string(text), id) {
			t.Errorf("%q is read as %q", text, id)
		}
	})
}

// FuzzHolder generates the content of master.lock.
func FuzzHolder(f *testing.F) {
	for _, s := range []string{"4711\n", "", "-1\n", "0\n", "99999999999999999999\n", "4711\n4712\n", unsettledMark} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, LockName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		pid := holder(dir)
		if pid < 0 || pid > 0 && !strings.HasSuffix(strings.TrimSpace(string(text)), strconv.Itoa(pid)) {
			t.Errorf("%q is read as %d", text, pid)
		}
	})
}
