//go:build linux

package handover

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// role selects the program that the test binary is.
const role = "HSU_HANDOVER_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "first":
		fmt.Println("error:", executeSecond())
		os.Exit(1)
	case "second":
		if err := report(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	case "signalled":
		fmt.Println("error:", executeSignalled())
		os.Exit(1)
	case "terminated":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		_, err := Take()
		<-time.After(10 * time.Second) // the signal ends this process meanwhile
		fmt.Println("error:", err)
		os.Exit(1)
	case "handles":
		taken, err := Take()
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		var mask unix.Sigset_t
		runtime.LockOSThread()
		err = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
		fmt.Println(taken.Signals(), mask.Val[0]&(1<<(unix.SIGUSR1-1)) != 0, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func executeSecond() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := write.WriteString("passed"); err != nil {
		return err
	}
	own, err := Self()
	if err != nil {
		return err
	}
	missing := Program{Path: "/nonexistent", Args: os.Args, Env: os.Environ()}
	if err := Execute(missing, map[string]*os.File{"pipe": read}, 1); err == nil {
		return fmt.Errorf("a missing program: %w", err)
	}
	fd, err := descriptor(read)
	if err != nil {
		return err
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		return fmt.Errorf("after a failure, children inherit the descriptor: %w", err)
	}
	path, err := PathOf(own)
	if err != nil {
		return err
	}
	if err := os.Setenv(role, "second"); err != nil {
		return err
	}
	p := Program{Path: path, Args: os.Args, Env: append(os.Environ(), "PARENT="+fmt.Sprint(os.Getpid()))}
	return Execute(p, map[string]*os.File{"pipe": read}, "facts")
}

// report prints the descriptors that the second program has taken.
func report() error {
	taken, err := Take()
	if err != nil || taken == nil {
		return fmt.Errorf("nothing taken: %w", err)
	}
	if again, err := Take(); again != nil || err != nil {
		return fmt.Errorf("taken twice: %v, %w", again, err)
	}
	var facts string
	if err := taken.Facts(&facts); err != nil {
		return err
	}
	f := taken.File("pipe")
	text := make([]byte, 6)
	if _, err := io.ReadFull(f, text); err != nil {
		return err
	}
	fd, err := descriptor(f)
	if err != nil {
		return err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	fmt.Println(facts, string(text), flags&unix.FD_CLOEXEC != 0, fmt.Sprint(os.Getpid()) == os.Getenv("PARENT"))
	return err
}

func TestNextProgramTakesWhatIsHandedOver(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=first")
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "facts passed true true" {
		t.Errorf("%q, %v, want the facts, the text, close-on-exec and the same process", got, err)
	}
}

// executeSignalled has signals for the next program at the last moment.
func executeSignalled() error {
	if err := os.Setenv(role, "handles"); err != nil {
		return err
	}
	return Execute(Program{
		Path: "/proc/self/exe", Args: os.Args,
		Env:  append(os.Environ(), signalsVariable+"=other 2"), // as an earlier release leaves it
		Late: func() []syscall.Signal { return []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1} },
	}, nil, 1)
}

func TestLateSignalsReachTheNextProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=signalled")
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "[terminated user defined signal 1] true <nil>" {
		t.Errorf("%q, %v, want both signals, and USR1 blocked until it is received", got, err)
	}
}

func TestExecutableIsWhatWasOpened(t *testing.T) {
	const program, text = "\x7fELF, or so", "#!/bin/sh\nexit 7\n"
	for name, test := range map[string]struct {
		content string
		change  func(path string) error
		changed bool
	}{
		"a program stays":      {program, func(string) error { return nil }, false},
		"a program is renamed": {program, func(path string) error { return os.Rename(path, path+".old") }, false},
		"a program is written": {program, func(path string) error { return appendTo(path) }, true},
		"a script stays":       {text, func(string) error { return nil }, false},
		"a script is written":  {text, func(path string) error { return appendTo(path) }, true},
		"a script is renamed":  {text, func(path string) error { return os.Rename(path, path+".old") }, true},
		"a script is replaced": {text, func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte(text), 0o700), os.Rename(path+".new", path))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(path, []byte(test.content), 0o700); err != nil {
				t.Fatal(err)
			}
			e, err := OpenExecutable(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = e.Close() }()
			if err := test.change(path); err != nil {
				t.Fatal(err)
			}
			at, err := e.Path()
			if (err != nil) != test.changed {
				t.Fatalf("%q, %v, want an error: %v", at, err, test.changed)
			}
			if err != nil {
				return
			}
			if content, err := os.ReadFile(at); string(content) != test.content {
				t.Errorf("at the path is %q, %v", content, err)
			}
		})
	}
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("#")
	return errors.Join(err, f.Close())
}

// Signals that an earlier release has left in the environment are not those of this handover.
func TestSignalsOfAnotherHandoverAreLeft(t *testing.T) {
	fd, err := writeManifest(manifest{PID: os.Getpid(), ID: "this", Facts: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(variable, fmt.Sprint(fd))
	t.Setenv(signalsVariable, "other 15")
	taken, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	if got := taken.Signals(); len(got) != 0 {
		t.Errorf("taken: %v", got)
	}
	if text, left := os.LookupEnv(signalsVariable); left {
		t.Errorf("the environment still has %q", text)
	}
}

// A signal that arrives before a program that replaces none has begun ends it as any other.
func TestEarlySignalEndsAProgramThatTakesNothing(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=terminated", variable+"=x")
	err := cmd.Run()
	exit, ended := errors.AsType[*exec.ExitError](err)
	if !ended || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the program ended with %v, want TERM", err)
	}
}

// A child that inherits the environment must take nothing.
func TestAnotherProcessTakesNothing(t *testing.T) {
	fd, err := writeManifest(manifest{PID: 1, Facts: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(variable, fmt.Sprint(fd))
	if taken, err := Take(); taken != nil || err != nil {
		t.Errorf("taken: %v, %v", taken, err)
	}
	t.Setenv(variable, "x")
	if _, err := Take(); err == nil {
		t.Error("a handover that cannot be read is no error")
	}
}
