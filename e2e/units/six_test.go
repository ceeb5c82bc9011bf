//go:build e2e && linux

package units

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// python is Debian's, which has the packages of Debian.
const python = "/usr/bin/python3"

// six is a host whose masters run a copy of the example of six programs.
type six struct {
	*site
	shop, cache, pages int // ports
}

// workersOfSix is the number of workers of the example that always run.
const workersOfSix = 6

// nightly is the worker of the example that runs at night.
const nightly = "report-0"

// awaitUp returns the dump, without the nightly worker, in which n workers run.
func (s *six) awaitUp(n int) harness.Dump {
	s.T.Helper()
	d := s.AwaitWorkers(n+1, "run", func(w harness.Worker) bool {
		return up(w) || w.ID == nightly && w.Status == "scheduled"
	})
	d.Workers = slices.DeleteFunc(d.Workers, func(w harness.Worker) bool { return w.ID == nightly })
	return d
}

// newSix copies the example. Each pair replaces a text of its configuration file by another one.
func newSix(t *testing.T, pairs ...string) *six {
	t.Helper()
	harness.NeedDebian(t, "python3-grpcio", python, "-c", "import grpc, google.protobuf")
	harness.NeedDebian(t, "nodejs", "node", "--version")
	harness.NeedDebian(t, "redis-server", "redis-server", "--version")
	s := &six{
		site: newSite(t, nil),
		shop: harness.FreePort(t), cache: harness.FreePort(t), pages: harness.FreePort(t),
	}
	if err := os.CopyFS(s.folder, os.DirFS(filepath.Join(harness.Repository, "examples", "six"))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("hsu-master.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("%q is not in the example", pairs[i])
		}
	}
	s.write("hsu.yaml", strings.NewReplacer(pairs...).Replace(string(text)))
	s.environ = []string{
		fmt.Sprint("SHOP_PORT=", s.shop), fmt.Sprint("CACHE_PORT=", s.cache), fmt.Sprint("PAGES_PORT=", s.pages),
		"GREETING=Good morning", "CHATTER_PAUSE=0.01",
	}
	return s
}

// greet calls acme.Greeter through the master.
func greet(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	var answer wrapperspb.StringValue
	err := conn.Invoke(ctx, "/acme.Greeter/Greet", wrapperspb.String(name), &answer, grpc.WaitForReady(true))
	return answer.GetValue(), err
}

// redis sends a command in a line of text over an open connection, and returns the first line of the answer.
func redis(conn net.Conn, command string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// visit is the answer of the shop.
type visit struct {
	Worker string `json:"worker"`
	PID    int    `json:"pid"`
	Folder string `json:"folder"`
	Visits *int   `json:"visits"`
}

func (s *six) visitShop() (v visit, err error) {
	body, err := get(s.T.Context(), s.shop, "/")
	if err == nil {
		err = json.Unmarshal([]byte(body), &v)
	}
	return v, err
}

// dialCache connects to Redis.
func (s *six) dialCache() net.Conn {
	s.T.Helper()
	conn, err := net.Dial("tcp", harness.Loopback(s.cache))
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = conn.Close() })
	return conn
}

// wantAnswers checks that each program of the dump answers for itself.
func (s *six) wantAnswers(d harness.Dump) {
	s.T.Helper()
	greeted := map[string]bool{}
	conn := s.Dial()
	harness.WaitFor(s.T, "both replicas greet", func() error {
		answer, err := greet(s.T.Context(), conn, "Ada")
		text, from, _ := strings.Cut(answer, "! ")
		if err != nil || text != "Good morning, Ada" {
			s.T.Errorf("greeting = %q, %v", answer, err)
		}
		worker, _, _ := strings.Cut(from, ",")
		if greeted[worker] = true; greeted["greeter-0"] && greeted["greeter-1"] {
			return nil
		}
		return fmt.Errorf("those that have: %v", greeted)
	})
	first, err := s.visitShop()
	second, err2 := s.visitShop()
	if err != nil || err2 != nil || first.Visits == nil || second.Visits == nil || *second.Visits <= *first.Visits {
		s.T.Errorf("two visits of the shop: %+v, %v, %+v, %v", first, err, second, err2)
	}
	want := visit{"shop-0", d.Worker(s.T, "shop-0").PID, s.path("shop"), second.Visits}
	if second != want {
		s.T.Errorf("the shop is %+v, want %+v", second, want)
	}
	if pong, err := redis(s.dialCache(), "PING"); pong != "+PONG" || err != nil {
		s.T.Errorf("PING of the cache = %q, %v", pong, err)
	}
	if page, err := get(s.T.Context(), s.pages, "/"); !strings.Contains(page, "It works") {
		s.T.Errorf("the page is %q, %v", page, err)
	}
}

// wantNoTwin checks that each worker of the dump is one process. Redis shows no environment, because it overwrites that
// with its title: it is known by its program.
func (s *six) wantNoTwin(d harness.Dump) {
	s.T.Helper()
	caches := slices.DeleteFunc(s.Processes(), func(p harness.Process) bool {
		return !strings.Contains(p.Command, "redis-server ") || p.Session != p.PID // what it forks looks like it
	})
	if len(caches) != 1 || caches[0].PID != d.Worker(s.T, "cache-0").PID {
		s.T.Errorf("cache-0 is process %d in the dump, and %v in /proc", d.Worker(s.T, "cache-0").PID, caches)
	}
	d.Workers = slices.DeleteFunc(slices.Clone(d.Workers), func(w harness.Worker) bool { return w.ID == "cache-0" })
	s.WantNoTwin(d)
}

func TestSixProgramsFromOneFile(t *testing.T) {
	t.Parallel()
	s := newSix(t)
	if out, err := harness.Output(t, "env", append(s.environ, harness.Programs.Master, "config", "check",
		s.path("hsu.yaml"))...); err != nil || !strings.Contains(out, "is valid: 6 units, 7 workers") {
		t.Errorf("config check: %v\n%s", err, out)
	}
	m := s.start()
	d := s.awaitUp(workersOfSix)
	s.wantAnswers(d)
	s.wantNoTwin(d)
	for id, port := range map[string]int{"shop-0": s.shop, "cache-0": s.cache, "pages-0": s.pages, "chatter-0": 0} {
		if got := d.Worker(t, id).Port; got != port {
			t.Errorf("%s has port %d, want %d", id, got, port)
		}
	}
	for id, folder := range map[string]string{
		"greeter-0": ".", "cache-0": "cache", "pages-0": "pages", "chatter-0": ".",
	} {
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", d.Worker(t, id).PID))
		if want := s.path(folder); got != want {
			t.Errorf("%s runs in %s, %v, want %s", id, got, err, want)
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", d.Worker(t, "chatter-0").PID))
	if !strings.Contains(string(environ), "\x00PAUSE=0.01\x00") {
		t.Errorf("PAUSE is not in the environment of chatter-0: %v", err)
	}
	if r := s.CLI("status"); r.Code != 0 {
		t.Errorf("status: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := s.CLI("worker", "list"); !strings.Contains(r.Stdout, " 03:00 in ") {
		t.Errorf("worker list does not say when %s is run next:\n%s", nightly, r.Stdout)
	}
	m.Stop()
	s.WantNothingLeft()
}
