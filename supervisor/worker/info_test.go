package worker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func TestLastOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop-1.log")
	if err := os.WriteFile(path, []byte("connect to db-shop-1:hunter22\nrefused\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := records.SecretKey("01234567890123456789012345678901")
	secretive := &unit.Spec{Name: "shop", Path: "a", Env: []string{"DSN=db-{worker}:hunter22"}}
	rec := records.Worker{ID: "shop-1", EnvironmentMAC: key.MAC(secretive.Name, secretive.Env)}
	changed := *secretive
	changed.Env = []string{"DSN=db-{worker}:hunter23"}
	withheld := []string{"(its output may have values of its environment: see " + path + ")"}
	for name, tt := range map[string]struct {
		info Info
		want []string
	}{
		"no log": {Info{}, nil},
		"log":    {Info{LogPath: path}, []string{"connect to db-shop-1:hunter22", "refused"}},
		"environment": {
			Info{LogPath: path, mask: maskOf(key, secretive, rec, path)}, []string{"connect to $DSN", "refused"},
		},
		"changed":  {Info{LogPath: path, mask: maskOf(key, &changed, rec, path)}, withheld},
		"removed":  {Info{LogPath: path, mask: maskOf(key, &unit.Spec{Name: "shop"}, rec, path)}, withheld},
		"recorded": {Recorded(rec, path), withheld},
		"journal": {
			Info{LogPath: path, Elsewhere: logs.ToJournal.Elsewhere("shop-1")},
			[]string{`(its output goes to the journal: "journalctl -t shop-1")`},
		},
	} {
		if got := tt.info.LastOutput(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if maskOf(key, &unit.Spec{}, records.Worker{}, path) != nil {
		t.Error("a unit without an environment has a mask")
	}
}
