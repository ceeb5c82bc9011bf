// Package executable finds the program that the kernel executes for a file: the file itself, the interpreter of a
// script, or the loader of a dynamically linked program.
package executable

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// Check returns an error if the program at path cannot run because its interpreter or loader is missing. It
// returns a [*safefile.ReplaceableError] if this process runs as root and another user can replace the program,
// its interpreter, or a folder or link on the way to them. The user that the program will run as may, because that
// gives it no other rights. Otherwise Check returns the file that the process will run, which for a script is
// the interpreter, or zero if that is not known or does not matter.
func Check(path string, user uint32) (identity.FileID, error) {
	chain, err := interpreters(path)
	if err != nil {
		return identity.FileID{}, err
	}
	for _, p := range chain {
		if err := safefile.CheckProgramOf(p.path, user); err != nil {
			return identity.FileID{}, err
		}
	}
	return runs(chain)
}

// CheckInterpreters returns an error if the file at path cannot be executed because its interpreter or loader is
// missing.
func CheckInterpreters(path string) error {
	_, err := interpreters(path)
	return err
}

// format is the way in which the kernel runs a file.
type format int

const (
	unknownFormat format = iota // also a file that cannot be read
	script
	elfFormat
)

// part is one of the files that the kernel opens to run a program.
type part struct {
	path   string
	format format
}

// maxInterpreters is one more than the number of interpreters that the kernel follows.
const maxInterpreters = 6

// interpreters returns the program, the interpreter named in its first line, the interpreter of that, and so on,
// and finally the loader of the last file.
func interpreters(path string) (chain []part, err error) {
	for range maxInterpreters {
		f, next := formatOf(path)
		chain = append(chain, part{path, f})
		if next == "" {
			return chain, nil
		}
		if _, err := os.Stat(next); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil, missing(path, f, next, err)
		}
		path = next
		if f == elfFormat {
			return append(chain, part{path, unknownFormat}), nil
		}
	}
	return chain, nil
}

func missing(path string, f format, next string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	what, step := "interpreter", "install it, or correct the first line of the script"
	switch {
	case f == elfFormat:
		what, step = "loader", "install it, or link the program statically"
	case strings.HasSuffix(next, "\r"):
		step = "the lines of the script end in CRLF: convert them to LF"
	}
	return fmt.Errorf("%s %q of %s: %w: %s", what, next, path, err, step)
}

// firstLine is the number of bytes of a script's first line that the kernel reads.
const firstLine = 256

// runner is the way in which the kernel runs a file, and the interpreter or loader that it uses, if any.
type runner struct {
	format format
	next   string
}

// runners has those of files, because all workers of a unit run the same program.
var runners versions[runner]

// formatOf returns the way in which the kernel runs a file, and the interpreter or loader that it uses, if any.
func formatOf(path string) (format, string) {
	r, err := runners.of(path, readRunner)
	if err != nil {
		return unknownFormat, ""
	}
	return r.format, r.next
}

func readRunner(file *os.File) (runner, error) {
	head := make([]byte, firstLine)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return runner{}, err
	}
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		return runner{script, scriptInterpreter(line)}, nil
	}
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		next, err := loader(file)
		return runner{elfFormat, next}, err
	}
	return runner{}, nil
}

// scriptInterpreter returns the first word after "#!", as the kernel splits the line.
func scriptInterpreter(line []byte) string {
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == 0 })
	if len(words) == 0 {
		return ""
	}
	path, err := filepath.Abs(string(words[0]))
	if err != nil {
		return ""
	}
	return path
}

// maxLoader bounds the path of a loader.
const maxLoader = 4096

// loader returns the loader of an ELF file, or "" if it names none. It returns an error if the file cannot be read.
func loader(file io.ReaderAt) (string, error) {
	parsed, err := elf.NewFile(file)
	if err != nil {
		return "", unreadable(err)
	}
	for _, p := range parsed.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(io.LimitReader(p.Open(), maxLoader))
			if err != nil {
				return "", unreadable(err)
			}
			name, _, _ = bytes.Cut(name, []byte{0})
			return string(name), nil
		}
	}
	return "", nil
}

// unreadable returns err if it is from a read of a file, and nil if it is about the content.
func unreadable(err error) error {
	if _, failed := errors.AsType[*fs.PathError](err); failed {
		return err
	}
	return nil
}
