//go:build inside

package inside

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// loggers are a worker whose output goes to the journal, and one whose output is that of the master.
const loggers = `
defaults: {kind: managed, start: {settle: 20ms}}
units:
  direct: {command: [/srv/log/count, direct], log: {to: journal}}
  shared: {command: [/srv/log/count, shared], log: {to: inherit}}
`

// count writes numbered lines, after one that tells whether it knows the stream that it writes to, and one with a
// priority.
const count = `#!/bin/sh
[ "$JOURNAL_STREAM" = "$(stat -Lc %d:%i /proc/$$/fd/1)" ] && echo "$1 knows its stream"
echo "<3>$1 is in error"
i=0
while :; do
	i=$((i + 1))
	echo "$1 line $i"
	sleep 0.02
done
`

// entries returns the messages of the journal that the arguments select.
func entries(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "journalctl", append([]string{"--no-pager", "-o", "cat"}, args...)...)
}

// lines returns the numbers of the lines of the program in the journal.
func lines(t *testing.T, identifier, program string) (numbers []int) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + program + ` line (\d+)$`)
	for _, found := range line.FindAllStringSubmatch(entries(t, "-t", identifier), -1) {
		n, _ := strconv.Atoi(found[1])
		numbers = append(numbers, n)
	}
	return numbers
}

// awaitLines waits until the journal has n more lines of the program than before, and returns the number of the last
// one. There must be no gap.
func awaitLines(t *testing.T, identifier, program string, before int) (last int) {
	t.Helper()
	var numbers []int
	waitFor(t, 30*time.Second, func() error {
		if numbers = lines(t, identifier, program); len(numbers) < before+20 {
			return fmt.Errorf("%s has %d lines, want %d", program, len(numbers), before+20)
		}
		return nil
	})
	for i, n := range numbers {
		if n != i+1 {
			t.Fatalf("line %d of %s has number %d", i+1, program, n)
		}
	}
	return len(numbers)
}

// The lines of workers are in the journal, those too that they write while their master is dead, and while journald
// restarts or crashes. When the journal is stopped for good, its workers are started again, and write to their files,
// unless systemd keeps their streams for the next journald.
func TestOutputInTheJournal(t *testing.T) {
	for _, dir := range []string{"/etc/hsu-master", "/srv/log"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	if err := errors.Join(os.WriteFile("/srv/log/count", []byte(count), 0o755),
		os.WriteFile(configFile, []byte(loggers), 0o644)); err != nil {
		t.Fatal(err)
	}
	cleanUpService(t)
	command(t, master, "systemd", "install", "--enable", "--config", configFile)
	running := map[string]string{"direct-0": "running", "shared-0": "running"}
	pids, first := awaitStatuses(t, 0, running)
	direct, shared := awaitLines(t, "direct-0", "direct", 0), awaitLines(t, "hsu-master", "shared", 0)
	// journald attributes a line to the unit of the process that writes it: the scope.
	for _, want := range []string{"direct knows its stream", "shared knows its stream"} {
		if got := entries(t, "-u", "hsu-workers-*"); !strings.Contains(got, want) {
			t.Errorf("the entries of the scope lack %q:\n%s", want, got)
		}
	}
	if got := entries(t, "-t", "hsu-master"); !strings.Contains(got, "shared knows its stream") ||
		!strings.Contains(got, "master started") {
		t.Errorf("the entries of the identifier lack lines of the master or of a worker with its output:\n%s", got)
	}
	if got := entries(t, "-t", "direct-0", "-p", "err"); got != "direct is in error" {
		t.Errorf("the errors of direct-0 are %q", got)
	}

	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after, _ := awaitStatuses(t, first, running)
	direct, shared = awaitLines(t, "direct-0", "direct", direct), awaitLines(t, "hsu-master", "shared", shared)
	command(t, "systemctl", "restart", "systemd-journald.service")
	direct, shared = awaitLines(t, "direct-0", "direct", direct), awaitLines(t, "hsu-master", "shared", shared)
	command(t, "systemctl", "kill", "-s", "KILL", "systemd-journald.service")
	// Lines that it had read and not written yet are lost, later ones are not.
	waitFor(t, 30*time.Second, func() error {
		for id, last := range map[string]string{
			"direct-0":   fmt.Sprintf("direct line %d", direct+100),
			"hsu-master": fmt.Sprintf("shared line %d", shared+100),
		} {
			if !strings.Contains(entries(t, "-t", id), last) {
				return fmt.Errorf("%q is missing", last)
			}
		}
		return nil
	})
	final, _ := awaitStatuses(t, 0, running)
	for id, pid := range pids {
		if after[id] != pid || final[id] != pid {
			t.Errorf("%s was process %d, after the crash %d, after those of journald %d", id, pid, after[id], final[id])
		}
	}

	journal := []string{
		"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket",
		"systemd-journald.service",
	}
	start := append([]string{"start"}, journal...)
	t.Cleanup(func() { _ = exec.Command("systemctl", start...).Run() })
	last := len(lines(t, "direct-0", "direct"))
	command(t, "systemctl", append([]string{"stop"}, journal...)...)
	if keepsStreams(t) {
		command(t, "systemctl", start...)
		waitFor(t, 30*time.Second, func() error {
			numbers := lines(t, "direct-0", "direct")
			for i := last; i < len(numbers); i++ {
				if numbers[i] != numbers[i-1]+1 {
					t.Fatalf("line %d follows line %d", numbers[i], numbers[i-1])
				}
			}
			if len(numbers) < last+100 {
				return fmt.Errorf("%d lines, want %d", len(numbers), last+100)
			}
			return nil
		})
		if now, _ := awaitStatuses(t, 0, running); now["direct-0"] != pids["direct-0"] {
			t.Errorf("direct-0 is process %d, want %d", now["direct-0"], pids["direct-0"])
		}
		return
	}
	waitFor(t, 30*time.Second, func() error {
		text, err := os.ReadFile("/var/lib/hsu-master/logs/direct-0.log")
		if err == nil && !strings.Contains(string(text), "direct line 20\n") {
			err = fmt.Errorf("its file is %q", text)
		}
		return err
	})
	command(t, "systemctl", start...)
}

// keepsStreams reports whether systemd keeps the streams of journald while that is stopped, as it does since version
// 254: no write fails, and journald reads on when it is started again.
func keepsStreams(t *testing.T) bool {
	t.Helper()
	return command(t, "systemctl", "show", "--value", "-p", "FileDescriptorStorePreserve",
		"systemd-journald.service") == "yes"
}
