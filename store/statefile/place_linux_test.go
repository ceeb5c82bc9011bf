package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A seccomp filter that does not know statx refuses it. The files of the state are found all the same.
func TestLeadsToWithoutStatx(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mine, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // the thread ends with the goroutine
			if err := refuse(unix.SYS_STATX, answer); err != nil {
				t.Logf("no filter can be installed: %v", err)
				return
			}
			if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, new(unix.Statx_t)); !errors.Is(err, answer) {
				t.Errorf("statx = %v, want %v", err, answer)
			}
			if is, err := LeadsTo(path, mine); err != nil || !is {
				t.Errorf("%s: in place: %t, %v", name, is, err)
			}
			if is, err := LeadsTo(path+".other", mine); is || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: missing: %t, %v", name, is, err)
			}
		}()
		<-done
	}
}

// refuse has a system call of this thread answered with an error.
func refuse(call uint32, answer unix.Errno) error {
	const number = 0 // in struct seccomp_data
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(answer)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}
