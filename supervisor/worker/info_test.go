package worker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func TestLastOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop-1.log")
	if err := os.WriteFile(path, []byte("connect to db-shop-1:hunter22\nrefused\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secretive := unit.Spec{Name: "shop", Path: "a", Env: []string{"DSN=db-{worker}:hunter22"}}
	for name, tt := range map[string]struct {
		info Info
		want []string
	}{
		"no log":      {Info{}, nil},
		"log":         {Info{LogPath: path}, []string{"connect to db-shop-1:hunter22", "refused"}},
		"environment": {Info{LogPath: path, mask: maskOf(secretive, "shop-1", 0)}, []string{"connect to $DSN", "refused"}},
		"journal": {
			Info{LogPath: path, Elsewhere: logs.ToJournal.Elsewhere("shop-1")},
			[]string{`(its output goes to the journal: "journalctl -t shop-1")`},
		},
	} {
		if got := tt.info.LastOutput(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if maskOf(unit.Spec{}, "shop-1", 0) != nil {
		t.Error("a unit without an environment has a mask")
	}
}
