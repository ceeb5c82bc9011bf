//go:build linux

package handover

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

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
