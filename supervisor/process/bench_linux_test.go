package process

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// crowd starts n idle processes with a token, in addition to those that the machine runs.
func crowd(b *testing.B, n int) []*Process {
	b.Helper()
	var all []*Process
	for range n {
		p, err := Start(Spec{
			Path: "/bin/sleep", Args: []string{"1000"},
			Env: []string{EnvMasterID + "=crowd", EnvWorkerToken + "=crowd", "PATH=" + os.Getenv("PATH")},
		})
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, p)
	}
	b.Cleanup(func() {
		for _, p := range all {
			_ = p.Signal(unix.SIGKILL)
		}
		for _, p := range all {
			<-p.Done()
			p.Exit()
			p.Close()
		}
	})
	return all
}

func countProcesses(b *testing.B) {
	b.Helper()
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	pids, err := procfs.Numbers("/proc", buf)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(pids)), "processes")
}

// reportCPU adds this process's CPU time, which does not depend on how busy the machine is.
func reportCPU(b *testing.B) (stop func()) {
	b.Helper()
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

// BenchmarkStart reports the time of Start alone and of a whole short life; "bare" is the same without this
// package's additions.
func BenchmarkStart(b *testing.B) {
	run := func(name string, start func() (finish func())) {
		b.Run(name, func(b *testing.B) {
			var total time.Duration
			for b.Loop() {
				begin := time.Now()
				finish := start()
				total += time.Since(begin)
				finish()
			}
			b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/start")
		})
	}
	run("process", func() func() {
		p, err := Start(Spec{Path: "/bin/true"})
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			<-p.Done()
			p.Exit()
			p.Close()
		}
	})
	run("helper", func() func() {
		p, err := Start(Spec{Path: "/bin/true", Rights: Rights{Attributes: Attributes{Umask: new(uint32(0o22))}}})
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			<-p.Done()
			p.Exit()
			p.Close()
		}
	})
	run("thread", func() func() {
		p, err := Start(Spec{Path: "/bin/true", Rights: Rights{Attributes: Attributes{NoNewPrivileges: true}}})
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			<-p.Done()
			p.Exit()
			p.Close()
		}
	})
	run("bare", func() func() {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Env: []string{}})
		if err != nil {
			b.Fatal(err)
		}
		return func() {
			if _, err := p.Wait(); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkStart100 starts a hundred processes in parallel.
func BenchmarkStart100(b *testing.B) {
	for b.Loop() {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				p, err := Start(Spec{Path: "/bin/true"})
				if err != nil {
					b.Error(err)
					return
				}
				<-p.Done()
				p.Exit()
				p.Close()
			})
		}
		wg.Wait()
	}
}

// BenchmarkDone measures the time from a kill to Done.
func BenchmarkDone(b *testing.B) {
	var total time.Duration
	for b.Loop() {
		p, err := Start(Spec{Path: "/bin/sleep", Args: []string{"1000"}})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := p.Signal(unix.SIGKILL); err != nil {
			b.Fatal(err)
		}
		<-p.Done()
		total += time.Since(start)
		p.Exit()
		p.Close()
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/death")
}

func BenchmarkScan(b *testing.B) {
	crowd(b, 100)
	countProcesses(b)
	defer reportCPU(b)()
	for b.Loop() {
		if _, err := Scan(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	p := crowd(b, 1)[0]
	for b.Loop() {
		again, err := Open(p.Identity(), "crowd")
		if err != nil {
			b.Fatal(err)
		}
		again.Close()
	}
}

// BenchmarkKillNobody measures the delay of a respawn if the old instance is completely dead.
func BenchmarkKillNobody(b *testing.B) {
	crowd(b, 100)
	countProcesses(b)
	w := startWorker(b, "exit", "0")
	<-w.Done()
	w.Exit()
	kill := func() {
		if left, err := w.family.Kill(context.Background()); err != nil || len(left) > 0 {
			b.Errorf("left %v, %v", left, err)
		}
	}
	b.Run("one", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			kill()
		}
	})
	b.Run("100 at once", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(kill)
			}
			wg.Wait()
		}
	})
}

func BenchmarkMembers(b *testing.B) {
	crowd(b, 100)
	countProcesses(b)
	w := startWorker(b, "sleep")
	w.expect(b, "ready")
	defer reportCPU(b)()
	for b.Loop() {
		members, err := w.family.Members(context.Background())
		if err != nil || len(members) != 1 {
			b.Fatal(members, err)
		}
	}
}

func BenchmarkOwnsPort(b *testing.B) {
	w := startWorker(b, "listen", "127.0.0.1:0")
	port := w.expectPID(b, "port")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	run := func(name string, port int, want Ownership) {
		b.Run(name, func(b *testing.B) {
			defer reportCPU(b)()
			for b.Loop() {
				if owner, err := w.family.OwnsPort(port); err != nil || owner != want {
					b.Fatal(owner, err)
				}
			}
		})
	}
	run("ours", port, PortOurs)
	b.Run("ours, 100 ask at once", func(b *testing.B) {
		defer reportCPU(b)()
		for b.Loop() {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if owner, err := w.family.OwnsPort(port); err != nil || owner != PortOurs {
						b.Error(owner, err)
					}
				})
			}
			wg.Wait()
		}
	})
	run("foreign", l.Addr().(*net.TCPAddr).Port, PortForeign)
	kernel.Withheld.SockDiag.Store(true)
	defer kernel.Withheld.SockDiag.Store(false)
	run("ours by proc", port, PortOurs)
}
