package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logDoc documents each message of the log.
const logDoc = "docs/LOGS.md"

// notMaster are the folders whose code is not part of a master.
var notMaster = []string{"bench", "cmd/hsu-worker", "e2e", "examples", "hsu-core", "tools"}

// loggerKeys are the keys that a package's logger has from Logger.With, by the package's folder.
var loggerKeys = map[string][]string{
	"supervisor/notify":   {"worker"},
	"supervisor/probe":    {"worker?"}, // not if the log is the gateway's
	"supervisor/recovery": {"worker"},
	"supervisor/worker":   {"worker"},
}

// withCalls are the calls of Logger.With by their folders. If one is added, loggerKeys must know its keys.
var withCalls = map[string]int{"supervisor": 1, "supervisor/worker": 2}

// logLine is a line of the log, as a call writes it or as a row of [logDoc] describes it.
type logLine struct {
	at      string // where the call or the row is
	levels  string
	message string
	keys    []string // the optional ones end in "?"
	// variable means that a call computes its keys: the source does not show which are optional.
	variable bool
	// shared means that the keys are those of several messages together, each of which has some of them.
	shared bool
}

// row returns the row of logDoc that describes the line.
func (l logLine) row() string {
	return fmt.Sprintf("| %s | %s | %s | MEANING |", l.levels, l.message, strings.Join(l.keys, ", "))
}

// describes reports whether the row l is about the call.
func (l logLine) describes(call logLine) bool {
	switch {
	case l.levels != call.levels || l.message != call.message:
		return false
	case call.shared:
		known := bare(call.keys)
		return !slices.ContainsFunc(bare(l.keys), func(key string) bool { return !slices.Contains(known, key) })
	case call.variable:
		return slices.Equal(bare(l.keys), bare(call.keys))
	}
	return slices.Equal(slices.Sorted(slices.Values(l.keys)), slices.Sorted(slices.Values(call.keys)))
}

// bare returns the keys, sorted, without the mark of optional ones.
func bare(keys []string) []string {
	keys = slices.Clone(keys)
	for i, key := range keys {
		keys[i] = strings.TrimSuffix(key, "?")
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// docs/LOGS.md has a row for each message of the log and each key, and describes none that does not exist.
func TestLogMessagesAreDocumented(t *testing.T) {
	calls, withs := logCalls(t, "../..")
	if !maps.Equal(withs, withCalls) {
		t.Errorf("Logger.With is called in %v, want %v: update withCalls, and loggerKeys if a package's logger "+
			"has other keys now", withs, withCalls)
	}
	rows, keys := logTables(t, filepath.Join("../..", logDoc))
	used := map[string]bool{}     // the keys in rows
	places := map[string]string{} // of the row of each message
	for _, row := range rows {
		if first := places[row.message]; first != "" {
			t.Errorf("%s: %q has a row already, in %s: one event has one message", row.at, row.message, first)
		}
		places[row.message] = row.at
		if !slices.ContainsFunc(calls, row.describes) {
			t.Errorf("%s: no call logs this, delete or correct the row:\n%s", row.at, row.row())
		}
		for _, key := range bare(row.keys) {
			used[key] = true
			if !slices.Contains(keys, key) {
				t.Errorf("%s: the table of keys lacks %q", row.at, key)
			}
		}
	}
	for _, key := range keys {
		if !used[key] {
			t.Errorf("%s: no message has the key %q", logDoc, key)
		}
	}
	lacking := map[string]bool{} // keys that no row of a shared call has, to report each once
	for _, call := range calls {
		if !slices.ContainsFunc(rows, func(row logLine) bool { return row.describes(call) }) {
			t.Errorf("%s: %s has no such row, write:\n%s", call.at, logDoc, call.row())
		}
		for _, key := range bare(call.keys) {
			if !used[key] && !lacking[key] {
				lacking[key] = true
				t.Errorf("%s: no row in %s has the key %q", call.at, logDoc, key)
			}
		}
	}
}

// logTables returns the rows of logDoc that describe messages, and the keys that it describes.
func logTables(t *testing.T, name string) (rows []logLine, keys []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 || strings.HasPrefix(line, "|---") {
			continue
		}
		for i, cell := range cells {
			cells[i] = strings.TrimSpace(cell)
		}
		switch cells = cells[1 : len(cells)-1]; {
		case cells[0] == "level" || cells[0] == "key": // the head
		case len(cells) == 2 && cells[1] != "":
			keys = append(keys, cells[0])
		case len(cells) == 4 && cells[3] != "":
			row := logLine{at: fmt.Sprintf("%s:%d", logDoc, number), levels: cells[0], message: cells[1]}
			if cells[2] != "" {
				row.keys = strings.Split(cells[2], ", ")
			}
			rows = append(rows, row)
		default:
			t.Errorf("%s:%d: not a row of level, message, keys and meaning, or of key and value: %s",
				logDoc, number, line)
		}
	}
	return rows, keys
}

// logCalls returns the calls in the module at root that write the master's log, and the number of calls of Logger.With
// by their folders.
func logCalls(t *testing.T, root string) (calls []logLine, withs map[string]int) {
	t.Helper()
	packages := map[string][]*ast.File{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, name)
		below = filepath.ToSlash(below)
		switch {
		case err != nil:
			return err
		case e.IsDir() && (slices.Contains(notMaster, below) || e.Name() == "testdata" ||
			below != "." && strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(files, below, text, parser.SkipObjectResolution)
		packages[path.Dir(below)] = append(packages[path.Dir(below)], f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	withs = map[string]int{}
	for folder, list := range packages {
		s := logScanner{t: t, files: files, folder: folder, functions: map[string]*ast.FuncDecl{}}
		for _, f := range list {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					s.functions[fn.Name.Name] = fn
				}
			}
		}
		for _, f := range list {
			s.scan(f)
		}
		calls = append(calls, s.calls...)
		if s.withs > 0 {
			withs[folder] = s.withs
		}
	}
	slices.SortFunc(calls, func(a, b logLine) int { return cmp.Compare(a.at, b.at) })
	return calls, withs
}

// logScanner finds the calls in one package that write the log. It works on the syntax alone: type-checking the module
// would take longer than all other tests of this package.
type logScanner struct {
	t         *testing.T
	files     *token.FileSet
	folder    string
	functions map[string]*ast.FuncDecl // of the package, methods included
	calls     []logLine
	withs     int
}

// logMethods are the methods of slog.Logger that log. before is the number of arguments before the message.
var logMethods = map[string]struct {
	level  string // "" if an argument gives it
	before int
}{
	"Debug": {"debug", 0}, "DebugContext": {"debug", 1},
	"Info": {"info", 0}, "InfoContext": {"info", 1},
	"Warn": {"warn", 0}, "WarnContext": {"warn", 1},
	"Error": {"error", 0}, "ErrorContext": {"error", 1},
	"Log": {"", 2}, "LogAttrs": {"", 2},
}

// scan finds the calls in a file.
func (s *logScanner) scan(f *ast.File) {
	imports := map[string]bool{}
	for _, i := range f.Imports {
		name := path.Base(i.Path.Value[1 : len(i.Path.Value)-1])
		if i.Name != nil {
			name = i.Name.Name
		}
		imports[name] = true
	}
	for _, d := range f.Decls {
		ast.Inspect(d, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := method.X.(*ast.Ident); ok && imports[x.Name] {
				return true // a function of a package, such as status.Error
			}
			if _, literal := stringOf(first(call.Args)); method.Sel.Name == "With" && literal {
				s.withs++
			}
			// Methods of the same names with fewer arguments are others: err.Error(), file.Info().
			if m, ok := logMethods[method.Sel.Name]; ok && len(call.Args) > m.before {
				s.add(f, d, call, m.level, m.before)
			}
			return true
		})
	}
}

// first returns the first expression of a list, or nil.
func first(list []ast.Expr) ast.Expr {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// add adds the lines that a call in the declaration d may write.
func (s *logScanner) add(f *ast.File, d ast.Decl, call *ast.CallExpr, level string, before int) {
	position := s.files.Position(call.Pos())
	line := logLine{at: fmt.Sprintf("%s:%d", position.Filename, position.Line), levels: level}
	var ok bool
	if line.keys, line.variable, ok = s.keys(d, call, call.Args[before+1:]); !ok {
		s.t.Errorf("%s: a key is not a literal", line.at)
		return
	}
	line.keys = append(slices.Clone(loggerKeys[s.folder]), line.keys...)
	if level == "" {
		if levels := levelsIn(call.Args[before-1]); len(levels) > 0 {
			line.levels = strings.Join(levels, ", ")
		} else {
			line.levels = strings.Join(levelsIn(d), ", ")
		}
	}
	if line.message, ok = stringOf(call.Args[before]); ok {
		s.calls = append(s.calls, line)
		return
	}
	// The message is a variable. Its values are the literals of the file that have a level and a message.
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		value, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		for i, e := range value.Elts[:max(0, len(value.Elts)-1)] {
			message, ok := stringOf(value.Elts[i+1])
			if name, isLevel := levelOf(e); isLevel && ok {
				one := line
				one.levels, one.message, one.shared, found = name, message, true, true
				s.calls = append(s.calls, one)
			}
		}
		return true
	})
	if !found {
		s.t.Errorf("%s: the message is not a literal", line.at)
	}
}

// keys returns the keys of a call in the declaration d whose arguments after the message are args. If the call passes
// a list, they are all keys in d and in the functions of the package that the arguments call, and variable is true.
func (s *logScanner) keys(d ast.Decl, call *ast.CallExpr, args []ast.Expr) (keys []string, variable, ok bool) {
	if call.Ellipsis.IsValid() {
		keys = attrsIn(d)
		ast.Inspect(args[len(args)-1], func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if m, ok := c.Fun.(*ast.SelectorExpr); ok && s.functions[m.Sel.Name] != nil {
					keys = append(keys, attrsIn(s.functions[m.Sel.Name])...)
				}
			}
			return true
		})
		for i, key := range keys {
			keys[i] = key + "?"
		}
		return keys, true, true
	}
	for len(args) > 0 {
		if attrs := attrsIn(args[0]); len(attrs) > 0 {
			keys, args = append(keys, attrs...), args[1:]
			continue
		}
		key, ok := stringOf(args[0])
		if !ok || len(args) == 1 {
			return nil, false, false
		}
		keys, args = append(keys, key), args[2:]
	}
	return keys, false, true
}

// attrsIn returns the keys of the attributes that are made in n, by functions such as slog.String.
func attrsIn(n ast.Node) (keys []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !isSlog(call.Fun) || len(call.Args) < 2 {
			return true
		}
		if key, ok := stringOf(call.Args[0]); ok {
			keys = append(keys, key)
		}
		return true
	})
	return keys
}

// levelsIn returns the levels that n names, the lowest first.
func levelsIn(n ast.Node) (levels []string) {
	order := []string{"debug", "info", "warn", "error"}
	ast.Inspect(n, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if level, ok := levelOf(e); ok && !slices.Contains(levels, level) {
				levels = append(levels, level)
			}
		}
		return true
	})
	slices.SortFunc(levels, func(a, b string) int {
		return cmp.Compare(slices.Index(order, a), slices.Index(order, b))
	})
	return levels
}

// levelOf returns the level that an expression such as slog.LevelInfo names.
func levelOf(e ast.Expr) (level string, ok bool) {
	s, isSelector := e.(*ast.SelectorExpr)
	if !isSelector || !isSlog(s) {
		return "", false
	}
	level, ok = strings.CutPrefix(s.Sel.Name, "Level")
	return strings.ToLower(level), ok && level != ""
}

// isSlog reports whether an expression names something of package slog.
func isSlog(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "slog"
}

// stringOf returns the value of a string literal, or of several with + between them.
func stringOf(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		x, ok := stringOf(e.X)
		y, also := stringOf(e.Y)
		return x + y, ok && also && e.Op == token.ADD
	}
	return "", false
}
