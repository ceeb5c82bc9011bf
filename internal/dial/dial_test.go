package dial

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
)

func TestServerThatComesAMomentLateIsReachedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := bufconn.Listen(1 << 16)
		server := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(server, health.NewServer())
		go func() { _ = server.Serve(listener) }()
		defer server.Stop()

		dials := 0
		conn, err := grpc.NewClient("passthrough:///late", Retry(time.Second, time.Second),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if dials++; dials == 1 {
					return nil, errors.New("refused")
				}
				return listener.DialContext(ctx)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		began := time.Now()
		_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(),
			&grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if took := time.Since(began); err != nil || took > 100*time.Millisecond {
			t.Errorf("answered after %v (%v), want 100ms at most", took, err)
		}
	})
}

// TestEveryConnectionOfTheProductRetriesSoon reads the sources: each grpc.NewClient must have the option of this
// package. hsu-core is a separate module with parameters of its own.
func TestEveryConnectionOfTheProductRetriesSoon(t *testing.T) {
	found := 0
	for _, dir := range []string{"api", "cmd", "supervisor", "hsu-core"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || !is(call.Fun, "grpc", "NewClient") {
					return true
				}
				found++
				for _, arg := range call.Args {
					option, ok := arg.(*ast.CallExpr)
					if ok && (is(option.Fun, "dial", "Retry") ||
						is(option.Fun, "grpc", "WithConnectParams") && dir == "hsu-core") {
						return true
					}
				}
				t.Errorf("%s: this connection waits a second after a refused dial", files.Position(call.Pos()))
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 4 {
		t.Errorf("%d connections found, want 4 or more", found)
	}
}

func is(fun ast.Expr, pkg, name string) bool {
	selector, ok := fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	x, ok := selector.X.(*ast.Ident)
	return ok && x.Name == pkg
}
