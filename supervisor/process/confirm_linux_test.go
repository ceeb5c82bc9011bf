package process

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process/executable"
)

func executableFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// dynamic returns the head of a program for this machine that needs a loader.
func dynamic(t *testing.T, loader string) []byte {
	t.Helper()
	machine, known := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if !known {
		t.Skip("no ELF head is known for", runtime.GOARCH)
	}
	const headSize, progSize = 64, 56
	head := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: headSize, Ehsize: headSize, Phentsize: progSize, Phnum: 1, Shentsize: 64,
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	head.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	size := uint64(len(loader) + 1)
	var b bytes.Buffer
	for _, part := range []any{
		head,
		elf.Prog64{Type: uint32(elf.PT_INTERP), Off: headSize + progSize, Filesz: size, Memsz: size},
		append([]byte(loader), 0),
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// The kernel reports "no such file" for a file that exists. Both the check and the start must name the file that
// is missing.
func TestMissingInterpreterIsNamed(t *testing.T) {
	inner := executableFile(t, "inner", []byte("#! /no/such/interpreter -x\n"))
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"script":         {[]byte("#!/no/such/interpreter\n"), `interpreter "/no/such/interpreter" of `},
		"script, spaces": {[]byte("#! \t/no/such/interpreter -u\n"), `interpreter "/no/such/interpreter" of `},
		"CRLF":           {[]byte("#!/bin/sh\r\necho\r\n"), `interpreter "/bin/sh\r" of `},
		"not a folder":   {[]byte("#!/dev/null/sh\n"), `interpreter "/dev/null/sh" of `},
		"of interpreter": {[]byte("#!" + inner + "\n"), `interpreter "/no/such/interpreter" of ` + inner},
		"loader":         {dynamic(t, "/lib/ld-none.so.1"), `loader "/lib/ld-none.so.1" of `},
	} {
		t.Run(name, func(t *testing.T) {
			path := executableFile(t, "w", tt.content)
			_, checked := executable.Check(path, 0)
			p, started := Start(Spec{Path: path})
			if started == nil {
				_ = p.Close()
			}
			for _, err := range []error{checked, started} {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			}
		})
	}
	crlf := executableFile(t, "w", []byte("#!/bin/sh\r\n"))
	if _, err := executable.Check(crlf, 0); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "convert them to LF") {
		t.Errorf("%v, want ErrNotExist and the next step", err)
	}
}

// exeOf returns the file that a start of the program at path must run.
func exeOf(t *testing.T, path string) identity.FileID {
	t.Helper()
	needRoot(t)
	exe, err := executable.Check(path, 0)
	if err != nil || exe == (identity.FileID{}) {
		t.Fatalf("Check(%s) = %v, %v", path, exe, err)
	}
	return exe
}

func TestProgramThatWasSwappedIsEnded(t *testing.T) {
	shell := executableFile(t, "w", []byte("#!/bin/sh\nwhile :; do :; done\n"))
	other, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	checked := exeOf(t, other)
	p, err := Start(Spec{Path: shell, Exe: checked})
	if err == nil {
		_ = p.Signal(9)
		t.Fatal("it runs")
	}
	if !strings.Contains(err.Error(), checked.String()) || !strings.Contains(err.Error(), "was replaced") {
		t.Errorf("%v, want the file that was checked", err)
	}
}

// A script that executes the worker may do so before the check.
func TestProgramThatExecutesAnotherIsLeftAlone(t *testing.T) {
	path := executableFile(t, "w", []byte("#!/bin/sh\nexec sleep 60\n"))
	exe := exeOf(t, path)
	for range 20 {
		p, err := Start(Spec{Path: path, Exe: exe, Env: os.Environ()})
		if err != nil {
			t.Fatal(err)
		}
		if name, err := executedAs(p.PID()); err == nil && name != path && !strings.HasSuffix(name, "/sleep") {
			t.Errorf("it was executed as %q", name)
		}
		if err := p.Signal(9); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		_ = p.Close()
	}
	// The program that it has executed by then is not the checked one.
	p, err := Start(Spec{Path: path, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = p.Signal(9)
		<-p.Done()
		_ = p.Close()
	}()
	awaitTrue(t, "the script executes sleep", func() bool {
		name, err := executedAs(p.PID())
		return err == nil && strings.HasSuffix(name, "/sleep")
	})
	if err := confirm(p.PID(), Spec{Path: path, Exe: exe}); err != nil {
		t.Error(err)
	}
}
