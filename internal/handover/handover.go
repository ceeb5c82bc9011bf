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
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/core-tools/hsu-master/internal/earlysignal"
)

const (
	// variable holds the number of the descriptor of the manifest.
	variable = earlysignal.Variable
	// signalsVariable holds the id of the manifest and the numbers of the late signals. A program of an earlier release
	// leaves it in the environment.
	signalsVariable = "HSU_HANDOVER_SIGNALS"
)

// maxManifest bounds the size of a manifest: 10,000 descriptors need less than one megabyte.
const maxManifest = 16 << 20

// ErrInvalid is returned by [Take] if the environment has a handover that cannot be read.
var ErrInvalid = errors.New("invalid handover")

// Program is the executable.
type Program struct {
	Path string
	Args []string // with argument 0
	Env  []string
	// Late returns signals for the next program, which gets them from [Taken.Signals]. It is called right before the
	// execution. It may be nil.
	Late func() []syscall.Signal
}

// environ returns the environment of the program, which gets the manifest from a descriptor.
func (p Program) environ(m manifest, list int) []string {
	environ := slices.DeleteFunc(slices.Clone(p.Env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == variable || name == signalsVariable
	})
	environ = append(environ, variable+"="+strconv.Itoa(list))
	if p.Late == nil {
		return environ
	}
	late := []string{m.ID}
	for _, s := range p.Late() {
		late = append(late, strconv.Itoa(int(s)))
	}
	return append(environ, signalsVariable+"="+strings.Join(late, " "))
}

// late returns the signals of the text that environ has made for this manifest, none if it is for another one.
func (m manifest) late(text string) (signals []syscall.Signal) {
	id, numbers, _ := strings.Cut(text, " ")
	if id != m.ID {
		return nil
	}
	for number := range strings.FieldsSeq(numbers) {
		if n, err := strconv.Atoi(number); err == nil {
			signals = append(signals, syscall.Signal(n))
		}
	}
	return signals
}

// manifest describes the descriptors that a process passes to its next program.
type manifest struct {
	PID   int             `json:"pid"`
	ID    string          `json:"id"`    // random
	Files map[string]int  `json:"files"` // by name
	Facts json.RawMessage `json:"facts"`
}

// Taken is the handover of the earlier program of this process.
type Taken struct {
	files   map[string]*os.File
	facts   json.RawMessage
	signals []syscall.Signal
}

// Take takes the handover of the earlier program of this process, nil if there was none. It removes the variable
// from the environment, and sets close-on-exec on all descriptors. It must be called before the first child is started.
func Take() (t *Taken, err error) {
	defer func() {
		if t == nil {
			earlysignal.Raise() // this process ends by signals as any other
		}
	}()
	text, late := os.Getenv(variable), os.Getenv(signalsVariable)
	if err := errors.Join(os.Unsetenv(variable), os.Unsetenv(signalsVariable)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if text == "" {
		return nil, nil //nolint:nilnil // this program replaces none
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
	t = &Taken{files: make(map[string]*os.File, len(m.Files)), facts: m.Facts, signals: m.late(late)}
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

// Signals returns the late signals of the earlier program, and those that this one has received since it began. From
// now on this program must receive signals by itself.
func (t *Taken) Signals() []syscall.Signal { return append(t.signals, earlysignal.Take()...) }

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
