package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the wanted output of tests, and docs/CONFIGURATION.md")

// TestFaults loads the faulty files of testdata/faults. Each archive has the files of /etc/hsu, and the wanted text of
// the error.
func TestFaults(t *testing.T) {
	archives, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archives: ", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := &archive.Files[len(archive.Files)-1]
			if want.Name != "want" {
				t.Fatal("the last file must be want")
			}
			files := map[string]string{}
			for _, f := range archive.Files[:len(archive.Files)-1] {
				files["/etc/hsu/"+f.Name] = string(f.Data)
			}
			host := fakeHost(files)
			host.Root = !strings.Contains(string(archive.Comment), "does not run the master as root")
			_, loadErr := Load(mainFile, host)
			if loadErr == nil {
				t.Fatal("no fault")
			}
			got := strings.ReplaceAll(loadErr.Error(), "/etc/hsu/", "") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("the faults differ (-want +got), -update accepts them:\n%s", diff)
			}
		})
	}
}
