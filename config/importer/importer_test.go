package importer

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/internal/placeholder"
)

var update = flag.Bool("update", false, "write the wanted results of the tests")

// folder is where the files of fakeHost are.
const folder = "/srv/app"

// fakeHost is a host that has only the given files, by their names below folder.
func fakeHost(files map[string]string) config.Host {
	known := func(name string) error {
		if name == "app" {
			return nil
		}
		return errors.New("unknown")
	}
	return config.Host{
		Root: true,
		Variable: func(name string) (string, bool) {
			value, found := map[string]string{"HOME": "/home/me", "WORDS": "a b"}[name]
			return value, found
		},
		ReadFile: func(path string) ([]byte, error) {
			name, _ := filepath.Rel(folder, path)
			if content, found := files[name]; found {
				return []byte(content), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
		Glob: func(pattern string) ([]string, error) {
			var found []string
			for name := range files {
				path := filepath.Join(folder, name)
				match, err := filepath.Match(pattern, path)
				if err != nil {
					return nil, err
				}
				if match {
					found = append(found, path)
				}
			}
			slices.Sort(found)
			return found, nil
		},
		CheckTrusted: func(string) error { return nil },
		User:         known, Group: known,
	}
}

// formatOf returns the format of a sample: its name begins with it.
func formatOf(sample string) string {
	for _, format := range Formats() {
		if strings.HasPrefix(filepath.Base(sample), format) {
			return format
		}
	}
	return ""
}

// Each sample in testdata has the file to import, files beside it, and the wanted result or error.
func TestSamples(t *testing.T) {
	samples, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(samples) == 0 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			archive, err := txtar.ParseFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			last := &archive.Files[len(archive.Files)-1]
			files := map[string]string{}
			for _, f := range archive.Files[:len(archive.Files)-1] {
				files[f.Name] = string(f.Data)
			}
			path := filepath.Join(folder, archive.Files[0].Name)
			got, err := Import(formatOf(sample), path, fakeHost(files))
			result := "hsu-master.yaml"
			if err != nil {
				got, result = []byte(err.Error()+"\n"), "error"
			} else {
				checkValid(t, got, files)
			}
			if *update {
				last.Name, last.Data = result, got
				if err := os.WriteFile(sample, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(last.Data), string(got)); diff != "" || last.Name != result {
				t.Errorf("%s instead of %s (-want +got), -update writes it:\n%s", result, last.Name, diff)
			}
		})
	}
}

// checkValid loads a result as a user does: saved beside the imported file.
func checkValid(t *testing.T, result []byte, files map[string]string) *config.File {
	t.Helper()
	saved := maps.Clone(files)
	saved["saved.yaml"] = string(result)
	host := fakeHost(saved)
	file, err := config.Load(filepath.Join(folder, "saved.yaml"), host)
	if err != nil {
		t.Fatalf("the result is not valid: %v\n%s", err, result)
	}
	return file
}

// The texts of a foreign file keep their meaning, whatever characters they have.
func TestTextsMeanThemselves(t *testing.T) {
	for _, word := range []string{
		"a", "$", "$$", "$a", "${a}", "${a:-b}", "$$a", "$${a}", "{", "}", "{{",
		"{port}", "{{port}}", "{replica", "a b",
		"\"", "'", "\\", "\\n", "#", " #a", ": ", "-", "--", "---", "-a", "null", "Null", "~", "true", "1.10",
		"0027", "0x1f", "1e3", ".inf",
		"<<", "*a", "&a",
		"!a", "@a", "`a`", "%a", "|", ">", "?", "[a]", "{a: b}", "ä", "\u2028", "\U0001F600",
		"\u00a0", "x-a", "a\tb", "=",
	} {
		d := newDocument()
		u := d.unit("a")
		u.set("kind", "managed")
		u.setList("command", arguments(literals("./a", word)))
		u.at("environment").named("A", literal(word).argument())
		u.set("working_dir", "/"+plainLiteral(word))
		src := &source{dir: folder, host: fakeHost(nil), path: folder + "/a"}
		result, err := valid(d, src)
		if err != nil {
			t.Errorf("%q: %v", word, err)
			continue
		}
		file := checkValid(t, result, map[string]string{})
		p := file.Units[0].Program
		if len(p.Command) != 2 || expanded(t, p.Command[1]) != word || expanded(t, p.Environment["A"]) != word ||
			p.WorkingDir != filepath.Join("/", word) && p.WorkingDir != "/"+word {
			t.Errorf("%q became %q, %q in %q:\n%s", word, p.Command, p.Environment, p.WorkingDir, result)
		}
	}
}

// expanded returns a text of a unit as it is for a worker.
func expanded(t *testing.T, text string) string {
	t.Helper()
	text, err := placeholder.Expand(text, placeholder.Known)
	if err != nil {
		t.Error(err)
	}
	return text
}
