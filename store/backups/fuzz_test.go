package backups

import (
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/statefile"
)

// FuzzBackupName generates the name of a file in the backups folder.
func FuzzBackupName(f *testing.F) {
	made := File{Sequence: 42, schema: 1, made: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
	for _, s := range []string{
		made.name(), made.name() + statefile.TempSuffix, strings.Replace(made.name(), "schema1", "schema01", 1),
		"state-0000000000000042-schema1-20261399T999999Z.db",
		"state-18446744073709551616-schema1-20260203T040506Z.db", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		b, ok := parseName(name)
		if ok && b.name() != name {
			t.Errorf("%q is read as %+v, which is %q", name, b, b.name())
		}
		if !ok && b != (File{}) {
			t.Errorf("%+v of %q", b, name)
		}
	})
}
