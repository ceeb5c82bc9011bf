package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Limits bound the resources that the processes of a cgroup use together. A zero field means no limit.
type Limits struct {
	Memory int64   // in bytes, without swap; rounded down to a page
	CPU    float64 // in processors
	PIDs   int     // processes and threads
	// Required means that a worker does not start if a limit cannot be enforced.
	Required bool
}

// None reports whether nothing is limited.
func (l Limits) None() bool { return l.Memory == 0 && l.CPU == 0 && l.PIDs == 0 }

// Bounds of the limits. Those of processors and processes are the kernel's.
const (
	MinMemory = 1 << 20 // no program starts with less
	MinCPU    = 0.01
	MaxCPU    = 1e6
	MaxPIDs   = 1 << 22
)

// Check reports each limit that is out of its bounds, by the name of its key.
func (l Limits) Check() error {
	var errs []error
	if l.Memory != 0 && l.Memory < MinMemory {
		errs = append(errs, fmt.Errorf("limits.memory: %d: must be at least %d bytes", l.Memory, MinMemory))
	}
	if l.CPU != 0 && !(l.CPU >= MinCPU && l.CPU <= MaxCPU) { // nor NaN
		errs = append(errs, fmt.Errorf("limits.cpu: %v: must be %v to %v", l.CPU, MinCPU, MaxCPU))
	}
	if l.PIDs < 0 || l.PIDs > MaxPIDs {
		errs = append(errs, fmt.Errorf("limits.pids: %d: must be 1 to %d", l.PIDs, MaxPIDs))
	}
	return errors.Join(errs...)
}

// file is the file of a limit.
type file struct {
	key        string // in the configuration
	controller string
	name       string
	unlimited  string // its content without a limit
	value      string // the content that is wanted
}

func (f file) limited() bool { return f.value != f.unlimited }

// period is the length of a period of cpu.max in microseconds: the kernel's default.
const period = 100_000

func (l Limits) files() []file {
	const unlimited = "max"
	list := []file{
		{key: "limits.memory", controller: "memory", name: "memory.max", unlimited: unlimited},
		{key: "limits.cpu", controller: "cpu", name: "cpu.max", unlimited: fmt.Sprint(unlimited, " ", period)},
		{key: "limits.pids", controller: "pids", name: "pids.max", unlimited: unlimited},
	}
	for i := range list {
		list[i].value = list[i].unlimited
	}
	if l.Memory > 0 {
		page := int64(os.Getpagesize())
		list[0].value = strconv.FormatInt(l.Memory/page*page, 10)
	}
	if l.CPU > 0 {
		list[1].value = fmt.Sprint(int64(math.Round(l.CPU*period)), " ", period)
	}
	if l.PIDs > 0 {
		list[2].value = strconv.Itoa(l.PIDs)
	}
	return list
}

// Unenforced returns all limits as ones that cannot be enforced for a reason.
func (l Limits) Unenforced(reason string) []string {
	var u unenforced
	for _, f := range l.files() {
		if f.limited() {
			u.add(f, reason)
		}
	}
	return u.list()
}

// Apply makes the limits those of a cgroup, enables the controllers that this needs in the parent of it, and returns
// the limits that it could not set. Each text has keys of the configuration, the reason and the next step. If the
// cgroup has processes, they go on running. Apply may be called concurrently.
func Apply(dir string, l Limits) []string {
	var u unenforced
	var missing []file
	for _, f := range l.files() {
		switch err := f.write(dir); {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist):
			if f.limited() {
				missing = append(missing, f)
			}
		default:
			u.add(f, err.Error())
		}
	}
	for _, f := range missing {
		err := enable(filepath.Dir(dir), f.controller)
		if err == nil {
			err = f.write(dir)
		}
		if err != nil {
			u.add(f, err.Error())
		}
	}
	return u.list()
}

// write makes the value that of a cgroup. If it is already, nothing is written.
func (f file) write(dir string) error {
	present, err := os.ReadFile(filepath.Join(dir, f.name))
	if err != nil {
		return fmt.Errorf("read the limit: %w", err)
	}
	if strings.TrimSpace(string(present)) == f.value {
		return nil
	}
	err = crashpoint.Do(crashpoint.CgroupLimit, func() error { return writeFile(dir, f.name, f.value) })
	if err != nil {
		return fmt.Errorf("set the limit: %w", err)
	}
	return nil
}

// unenforced are limits by the reason why they cannot be enforced.
type unenforced struct {
	reasons []string
	keys    map[string][]string
}

func (u *unenforced) add(f file, reason string) {
	if u.keys == nil {
		u.keys = map[string][]string{}
	}
	if !slices.Contains(u.reasons, reason) {
		u.reasons = append(u.reasons, reason)
	}
	u.keys[reason] = append(u.keys[reason], f.key)
}

func (u *unenforced) list() (list []string) {
	for _, reason := range u.reasons {
		list = append(list, strings.Join(u.keys[reason], ", ")+": "+reason)
	}
	return list
}
