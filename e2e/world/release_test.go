//go:build e2e && linux

package world

import (
	"bytes"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// The release contains nothing of the crash points and injected faults of the tests: neither their functions nor
// the names of their variables.
func TestReleasedMasterHasNoCrashPoints(t *testing.T) {
	t.Parallel()
	released := readFile(t, buildAsTheMakefileDoes(t))
	tested := readFile(t, harness.Programs.Master)
	words := append(helpers(t), "hsu-master/internal/leaks.", "go.uber.org/goleak.")
	found := 0
	for _, word := range words {
		if bytes.Contains(released, []byte(word)) {
			t.Errorf("%q is in the released master", word)
		}
		if bytes.Contains(tested, []byte(word)) {
			found++
		}
	}
	// Otherwise the list of words would be wrong. Small functions are inlined.
	t.Logf("of %d words %d are in the master under test", len(words), found)
	if found < len(words)/2 || !bytes.Contains(tested, []byte("HSU_CRASH_POINT")) ||
		!bytes.Contains(tested, []byte("HSU_FAULT_DIR")) {
		t.Errorf("only %d of %q are in the master under test", found, words)
	}
}

// buildAsTheMakefileDoes builds the master as "make build" does, but in another directory, and returns its path.
// All other programs under test are built with its tags.
func buildAsTheMakefileDoes(t *testing.T) string {
	t.Helper()
	show := exec.CommandContext(t.Context(), "make",
		"--no-print-directory", "--always-make", "--dry-run", "bin/hsu-master")
	show.Dir, show.Stderr = harness.Repository, os.Stderr
	text, err := show.Output()
	if err != nil {
		t.Fatalf("ask make for the command: %v", err)
	}
	command, path := string(text), filepath.Join(t.TempDir(), "hsu-master")
	const target = " -o bin/hsu-master "
	if strings.Count(command, target) != 1 || !strings.Contains(command, " -tags "+harness.ReleaseTags+" ") {
		t.Fatalf("make would do %q: want it to build%swith the tags %s", command, target, harness.ReleaseTags)
	}
	compile := exec.CommandContext(t.Context(), "bash", "-euc", strings.Replace(command, target, " -o '"+path+"' ", 1))
	compile.Dir = harness.Repository
	if output, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
	return path
}

// helpers returns the functions that this module has only with the tag crashpoints, as a binary names them, and the
// variables that they read.
func helpers(t *testing.T) (words []string) {
	t.Helper()
	var tagged []string
	released := map[string]bool{}
	err := filepath.WalkDir(harness.Repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg := "hsu-master/" + filepath.ToSlash(filepath.Dir(strings.TrimPrefix(path, harness.Repository+"/")))
		if file.Name.Name == "main" {
			pkg = "main"
		}
		only := onlyWithCrashPoints(file)
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name != "init" {
				if name := pkg + "." + f.Name.Name; only {
					tagged = append(tagged, name)
				} else {
					released[name] = true
				}
			}
		}
		if only {
			words = append(words, regexp.MustCompile(`\bHSU_[A-Z_]+\b`).FindAllString(string(readFile(t, path)), -1)...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tagged {
		if !released[name] {
			words = append(words, name)
		}
	}
	return words
}

func onlyWithCrashPoints(file *ast.File) bool {
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if expr, err := constraint.Parse(comment.Text); err == nil {
				with := expr.Eval(func(tag string) bool { return tag != "windows" })
				without := expr.Eval(func(tag string) bool { return tag != "windows" && tag != "crashpoints" })
				return with && !without
			}
		}
	}
	return false
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
