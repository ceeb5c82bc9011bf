// Package handover passes descriptors from a program to the one that replaces it in the same process, by execve.
//
// The list of the descriptors is in an anonymous file, whose number is in the environment. It names the process, so
// that a child which inherits the environment takes nothing.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// variable holds the number of the descriptor of the manifest.
const variable = "HSU_HANDOVER"

// maxManifest bounds the size of a manifest: 10,000 descriptors need less than one megabyte.
const maxManifest = 16 << 20

// ErrInvalid is returned by [Take] if the environment has a handover that cannot be read.
var ErrInvalid = errors.New("invalid handover")

// Program is the executable.
type Program struct {
	Path string
	Args []string // with argument 0
	Env  []string
}

// manifest describes the descriptors that a process passes to its next program.
type manifest struct {
	PID   int             `json:"pid"`
	Files map[string]int  `json:"files"` // by name
	Facts json.RawMessage `json:"facts"`
}

// Taken is the handover of the earlier program of this process.
type Taken struct {
	files map[string]*os.File
	facts json.RawMessage
}

// Take takes the handover of the earlier program of this process, nil if there was none. It removes the variable
// from the environment, and sets close-on-exec on all descriptors. It must be called before the first child is started.
func Take() (*Taken, error) {
	text := os.Getenv(variable)
	if text == "" {
		return nil, nil //nolint:nilnil // this program replaces none
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%w: %s=%q is no descriptor", ErrInvalid, variable, text)
	}
	file := os.NewFile(uintptr(fd), variable)
	defer func() { _ = file.Close() }() // it is only read
	content, err := io.ReadAll(io.NewSectionReader(file, 0, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if m.PID != os.Getpid() {
		return nil, nil //nolint:nilnil // it is that of another process, from which this one has its environment
	}
	t := &Taken{files: make(map[string]*os.File, len(m.Files)), facts: m.Facts}
	for name, fd := range m.Files {
		closeOnExec(fd)
		t.files[name] = os.NewFile(uintptr(fd), name) //nolint:gosec // a descriptor is not negative
	}
	return t, nil
}

// File removes the descriptor with the name and returns it, nil if there is none. The caller must close it.
func (t *Taken) File(name string) *os.File {
	if t == nil {
		return nil
	}
	f := t.files[name]
	delete(t.files, name)
	return f
}

// Names returns the names of the descriptors that are left.
func (t *Taken) Names() []string {
	names := make([]string, 0, len(t.files))
	for name := range t.files {
		names = append(names, name)
	}
	return names
}

// Facts decodes the facts that were passed to Execute.
func (t *Taken) Facts(into any) error {
	if err := json.Unmarshal(t.facts, into); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Close closes the descriptors that are left.
func (t *Taken) Close() {
	if t == nil {
		return
	}
	for name, f := range t.files {
		_ = f.Close() // nothing was written to it
		delete(t.files, name)
	}
}
