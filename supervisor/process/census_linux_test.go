package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/identity"
)

// A thousand families share the pass over the descriptors of all processes, and a process that has closed the file
// since, or only has it open, is no member.
func TestOpenersReadDescriptorsOnce(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "lease"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lease, err := fileID(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	first, second := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	for _, cmd := range []*exec.Cmd{first, second} {
		cmd.ExtraFiles = []*os.File{file}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	c, err := takeCensus(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []int{first.Process.Pid, second.Process.Pid}
	slices.Sort(want)
	got := slices.Sorted(slices.Values(c.openers(lease)))
	if !slices.Equal(got, want) {
		t.Errorf("the openers of the file are %v, want %v without this process", got, want)
	}
	if other := c.openers(identity.FileID{Inode: 1}); len(other) > 0 {
		t.Errorf("the openers of no file are %v", other)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if again := c.openers(lease); len(again) != len(want) {
		t.Errorf("the descriptors were read again: %v, want %v", again, want)
	}
	f := Family{Lease: lease, LeasePath: file.Name(), UID: uint32(os.Getuid())}
	if found := f.find(c, true); len(found) > 0 {
		t.Errorf("members by a file that is open and not locked: %v", found)
	}
}
