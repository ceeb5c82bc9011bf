//go:build go1.25

package contract

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "../.."

// api is the exported API of hsu-core v0.0.0-20250619224703-c67bc8d77724, by package folder, one line a
// declaration. The generated code of go/api/proto is not in it: what that must be is tested there.
var api = map[string][]string{
	"go/logging": {
		"const LogLevelDebug = 0",
		"const LogLevelInfo = 1",
		"const LogLevelWarn = 2",
		"const LogLevelError = 3",
		"type Logger interface { LogLevelf(level int, format string, args ...any); " +
			"Debugf(msg string, args ...any); Infof(msg string, args ...any); " +
			"Warnf(msg string, args ...any); Errorf(msg string, args ...any) }",
		"type LogLevelFunc func(level int, format string, args ...any)",
		"type LogFunc func(format string, args ...any)",
		"type LogFuncs struct { LogLevelf LogLevelFunc; Debugf LogFunc; Infof LogFunc; Warnf LogFunc; Errorf LogFunc }",
		"func NewLogger(prefix string, funcs LogFuncs) Logger",
	},
	"go/domain": {
		"type Contract interface { Ping(ctx context.Context) error }",
		"func NewDefaultHandler(logger logging.Logger) Contract",
		"type RetryPingOptions struct { RetryAttempts int; RetryInterval time.Duration }",
		"func RetryPing(ctx context.Context, client Contract, options RetryPingOptions, logger logging.Logger) error",
	},
	"go/control": {
		"type APIType string",
		`const APITypeGRPC APIType = "grpc"`,
		"type ServerOptions struct { Port int }",
		"type Server interface { GRPC() grpc.ServiceRegistrar; Run(onShutdownFunc func()) }",
		"func NewServer(options ServerOptions, logger logging.Logger) (Server, error)",
		"type ConnectionOptions struct { ServerPath string; AttachPort int }",
		"type Connection interface { GRPC() grpc.ClientConnInterface; Shutdown() }",
		"func NewConnection(options ConnectionOptions, logger logging.Logger) (Connection, error)",
		"func NewGRPCClientGateway(conn grpc.ClientConnInterface, logger logging.Logger) domain.Contract",
		"func RegisterGRPCServerHandler(server grpc.ServiceRegistrar, handler domain.Contract, logger logging.Logger)",
	},
	"go/process": {
		"type Controller interface { Stop() }",
		"type ControllerLogConfig struct { Module string; Funcs logging.LogFuncs }",
		"func NewController(path string, args []string, retryPeriod time.Duration, " +
			"logConfig ControllerLogConfig) (Controller, error)",
	},
	"go/api/proto": {
		`const Version = "v1.0.0"`,
		`const ProtocolVersion = "1.0"`,
	},
	"internal/contract": nil,
}

// The text of a declaration is compared, in every file whatever system it is for: the imports that give the
// names in it their meaning are the same three (context, time, grpc) and the module's own.
func TestExportedAPI(t *testing.T) {
	got := make(map[string][]string)
	err := fs.WalkDir(os.DirFS(module), ".", func(file string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == "testdata" {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		declared, err := exported(filepath.Join(module, filepath.FromSlash(file)))
		got[path.Dir(file)] = append(got[path.Dir(file)], declared...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range slices.Sorted(maps.Keys(got)) {
		want, ok := api[folder]
		if !ok {
			t.Errorf("%s: not a package of hsu-core", folder)
		}
		for _, line := range got[folder] {
			if !slices.Contains(want, line) {
				t.Errorf("%s: not in the contract:\n\t%s", folder, line)
			}
		}
		for _, line := range want {
			if n := count(got[folder], line); n != 1 {
				t.Errorf("%s: declared %d times:\n\t%s", folder, n, line)
			}
		}
	}
	for folder := range api {
		if _, ok := got[folder]; !ok {
			t.Errorf("%s: no such package", folder)
		}
	}
}

func count(lines []string, line string) int {
	n := 0
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// exported returns the exported declarations of a file, methods of exported types among them. Of a generated
// file it returns none.
func exported(file string) ([]string, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil || ast.IsGenerated(parsed) {
		return nil, err
	}
	if parsed, err = parser.ParseFile(fset, file, nil, parser.SkipObjectResolution); err != nil {
		return nil, err
	}
	var lines []string
	add := func(keyword string, node any) {
		lines = append(lines, strings.TrimSpace(keyword+" "+text(fset, node)))
	}
	for _, decl := range parsed.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
				d.Body = nil
				add("", d)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						add("type", s)
					}
				case *ast.ValueSpec:
					if slices.ContainsFunc(s.Names, (*ast.Ident).IsExported) {
						add(d.Tok.String(), s)
					}
				}
			}
		}
	}
	return lines, nil
}

func receiver(d *ast.FuncDecl) string {
	star, ok := d.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return d.Recv.List[0].Type.(*ast.Ident).Name
	}
	return star.X.(*ast.Ident).Name
}

var (
	lineEnds = regexp.MustCompile(`\s*\n\s*`)
	blanks   = regexp.MustCompile(`[ \t]+`)
)

// text prints a declaration on one line.
func text(fset *token.FileSet, node any) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, fset, node); err != nil {
		return err.Error()
	}
	s := lineEnds.ReplaceAllString(b.String(), "; ")
	s = blanks.ReplaceAllString(s, " ")
	s = strings.NewReplacer("{; ", "{ ", "; }", " }", "interface{}", "any",
		"(; ", "(", ",; )", ")", ",; ", ", ").Replace(s) // a signature may be broken into lines
	return regexp.MustCompile(`(; )+`).ReplaceAllString(s, "; ")
}
