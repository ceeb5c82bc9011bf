package crashpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

const root = "../.."

// acts are the calls that make state durable or have an effect outside of the process.
var acts = map[string]bool{
	"os.Rename": true, "os.WriteFile": true, "os.Truncate": true, "os.Link": true,
	"syscall.StartProcess": true, "syscall.ForkExec": true,
	"unix.Kill": true, "syscall.Kill": true, "unix.PidfdSendSignal": true,
	"unix.Rmdir": true, "unix.Renameat2": true, "unix.Ftruncate": true,
	".Commit": true, ".Truncate": true, ".Sync": true,
	"process.Start": true, "writeFile": true, "cgroup.Join": true, "Join": true, "unix.Prlimit": true,
	".conn.StartTransientUnitContext": true,
	"statefile.TryLock":               true, "safefile.SyncDir": true, "statefile.Datasync": true,
	".space.collapse": true, ".space.punch": true,
	".Store.Apply": true, ".store.Apply": true,
	".services.Add": true, ".services.AddIdle": true, ".services.SetReady": true,
	".services.Withdraw": true, ".services.Remove": true,
	".registry.Add": true, ".registry.Withdraw": true, ".registry.Remove": true,
}

// behind lists functions that are reached only through the seam, and calls that need no point, each with the
// reason. A name without a package is that of functions in any package.
var behind = map[string]string{
	"forkInto":            "called by fork, which is a point",
	"Join":                "called as a point",
	"signalGroup":         "called by SignalGroup, which is a point",
	"signalGroupByNumber": "called by SignalGroup, which is a point",
	"unreaped":            "signal 0 reaches nobody",
	"write":               "of the lock: called by writePID as a point, and by release, which Close calls as one",
	"Sync":                "of the counter: called as a point by whoever counts",
	"Datasync":            "called by Sync and SyncMeta",
	"SyncMeta":            "called as a point",
	"ReadLock":            "a reader changes nothing",
	"launcher.Start":      "process.Start has the points",
	"oneshot.Run":         "process.Start has the points",
	"strays.Run":          "only tests call it",
	"SyncDir":             "called as a point",
	"datasync":            "called as a point",
	"collapses":           "the file system refuses the range",
	"acceptMove":          "its commit is a point of the store",
	"MoveTo":              "the pause process ends with its master, wherever it is",
}

// Every act must pass the seam: it is in a function that is passed to Do or Pass, or is passed to them itself.
func TestNoActIsForgotten(t *testing.T) {
	used := map[string]bool{}
	found := 0
	eachFile(t, func(set *token.FileSet, file *ast.File) {
		var stack []ast.Node
		ast.Inspect(file, func(n ast.Node) bool {
			if n == nil {
				stack = stack[:len(stack)-1]
				return true
			}
			stack = append(stack, n)
			call, ok := n.(*ast.CallExpr)
			if !ok || !isAct(call) {
				return true
			}
			found++
			function := enclosing(stack)
			if _, excused := behind[file.Name.Name+"."+function]; excused {
				used[file.Name.Name+"."+function] = true
			} else if _, excused := behind[function]; excused {
				used[function] = true
			} else if !slices.ContainsFunc(stack, isSeam) {
				t.Errorf("%s: %s in %s does not pass the seam", set.Position(call.Pos()), name(call.Fun), function)
			}
			return true
		})
	})
	if found < 15 {
		t.Errorf("only %d acts were found: the test looks in the wrong place", found)
	}
	for function := range behind {
		if !used[function] {
			t.Errorf("%s is excused and has no act", function)
		}
	}
}

func isAct(call *ast.CallExpr) bool {
	full := name(call.Fun)
	for act := range acts {
		if full == act || act[0] == '.' && strings.HasSuffix(full, act) {
			return true
		}
	}
	return false
}

// isSeam reports whether the node is a call of crashpoint.Do or Pass, or of a method with the same name that calls
// them.
func isSeam(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	full := name(call.Fun)
	return full == "crashpoint.Do" || full == "crashpoint.Pass" || strings.HasSuffix(full, ".Perform") ||
		strings.HasSuffix(full, ".whileMarked")
}

func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return name(e.X) + "." + e.Sel.Name
	}
	return ""
}

func enclosing(stack []ast.Node) string {
	for _, n := range slices.Backward(stack) {
		if f, ok := n.(*ast.FuncDecl); ok {
			return f.Name.Name
		}
	}
	return ""
}

// eachFile calls visit with each source file of the product, without tests and generated code.
func eachFile(t *testing.T, visit func(*token.FileSet, *ast.File)) {
	t.Helper()
	for _, dir := range []string{
		"api", "cmd/hsu-master", "internal/safefile", "internal/systemd", "master", "migrations", "store",
		"supervisor",
	} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") ||
				strings.HasSuffix(path, ".pb.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err == nil {
				visit(set, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every declared point must be in All, and must be passed somewhere.
func TestEveryPointIsListedAndUsed(t *testing.T) {
	declared := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if value, ok := spec.Values[0].(*ast.BasicLit); ok {
				declared[spec.Names[0].Name] = true
				values[strings.Trim(value.Value, `"`)] = true
			}
		}
		return true
	})
	listed := map[string]bool{}
	for _, p := range crashpoint.All() {
		if listed[string(p)] {
			t.Errorf("%s is listed twice", p)
		}
		listed[string(p)] = true
	}
	for value := range values {
		stands := slices.ContainsFunc(slices.Collect(maps.Keys(listed)), func(p string) bool {
			return p == value || strings.HasPrefix(p, value+"-write") // a file point stands for its steps
		})
		if !stands {
			t.Errorf("%s is not in All", value)
		}
	}
	eachFile(t, func(_ *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(name(s), "crashpoint.") {
				delete(declared, s.Sel.Name)
			}
			return true
		})
	})
	for point := range declared {
		t.Errorf("no act passes crashpoint.%s", point)
	}
}
