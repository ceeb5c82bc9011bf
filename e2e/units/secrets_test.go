//go:build e2e && linux

package units

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// telling prints a variable when it is asked for its health, and fails if a file exists.
const telling = `#!/bin/sh
echo "the token $TOKEN and the password $PASSWORD of $USER_NAME are refused"
test ! -e "$NOTES/sick"
`

// secrets are values of an environment, by their origins.
var secrets = map[string]string{
	"a literal": "literal-7Kq2vXw9", "a variable": "variable-Zt5mB1pL",
	"a file": "file-Hc8sN4yD", "env_file": "envfile-Rj3gT6fA",
}

// Values of environments are shown by no command, no message and no file besides the output of the workers themselves.
func TestValuesOfEnvironmentsAreShownNowhere(t *testing.T) {
	t.Setenv("SECRET_OF_THE_TEST", secrets["a variable"])
	metrics := harness.FreePort(t)
	site := newSite(t, map[string]string{
		"token":    secrets["a file"] + "\n",
		"more.env": "KEY=" + secrets["env_file"] + "\n",
		"exiting":  exiting,
		"telling":  telling,
	})
	t.Setenv("NOTES", site.Record)
	file := func(literal, level string) string {
		return fmt.Sprintf(`
metrics: 127.0.0.1:%d
log: {level: debug}
defaults:
  kind: managed
  env_file: [more.env]
  environment:
    NOTES: "${NOTES}"
    PASSWORD: %s
    USER_NAME: "${SECRET_OF_THE_TEST}"
    TOKEN: "${file:%s}"
units:
  sleeping:
    command: [sleep, "1000"]
    health: {type: exec, command: [./telling], interval: 100ms}
    environment: {LEVEL: %s}
  starting:
    command: [sleep, "1000"]
    health: {type: exec, command: [sh, -c, "./telling; exit 1"], interval: 100ms}
    start: {timeout: 10m}
  failing:
    command: [./exiting, "3"]
    restart: {policy: never}
  talking:
    command: [sh, -c, "./telling; exit 3"]
    restart: {policy: never}
  missing: {command: [./nothing]}
`, metrics, literal, site.path("token"), level)
	}
	site.write("hsu.yaml", file(secrets["a literal"], "info"))
	out := map[string]string{}
	config := []string{"--config", site.path("hsu.yaml")}
	ask := func(when string) {
		for _, args := range [][]string{
			{"worker", "list"},
			{"worker", "list", "--json"},
			{"status"},
			{"status", "--json"},
			{"state", "dump"},
			{"state", "dump", "--json"},
			{"state", "check"},
			{"state", "check", "--json"},
			append([]string{"state", "plan", "--verbose"}, config...),
			append([]string{"state", "plan", "--json"}, config...),
			{"state", "plan"},
			{"service", "list", "--json"},
			{"reload", "--dry-run"},
		} {
			r := site.CLI(args...)
			out[when+" "+strings.Join(args, " ")] = r.Stdout + r.Stderr
		}
		site.CLI("state", "backup", site.path(strings.ReplaceAll(when, " ", "-")+".backup"))
	}
	m := site.start()
	site.await("sleeping-0", "runs", up)
	site.await("failing-0", "has failed", func(w harness.Worker) bool { return w.Status == "failed" })
	harness.WaitFor(t, "the answer of a check is shown", func() error {
		if r := site.CLI("worker", "list", "--json"); !strings.Contains(r.Stdout, "the token $TOKEN and the password") {
			return fmt.Errorf("it is not in %s", r.Stdout)
		}
		return nil
	})
	site.await("talking-0", "has failed", func(w harness.Worker) bool {
		const want = "the token $TOKEN and the password $PASSWORD of $USER_NAME"
		return w.Status == "failed" && strings.Contains(strings.Join(w.LastOutput, "\n"), want)
	})
	ask("first")
	if err := os.WriteFile(filepath.Join(site.Record, "sick"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	site.await("sleeping-0", "is sick", func(w harness.Worker) bool { return w.Status != "running" })
	ask("sick")
	page, err := get(t.Context(), metrics, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	out["metrics"] = page

	if err := os.Remove(filepath.Join(site.Record, "sick")); err != nil {
		t.Fatal(err)
	}
	site.await("sleeping-0", "is well", up)

	// Files with faults, near values too.
	reloads := 0
	for name, faulty := range map[string]string{
		"placeholder": file(`"`+secrets["a literal"]+`{nothing}"`, "info"),
		"quote":       file(`"`+secrets["a literal"], "info"),
		"list":        file("["+secrets["a literal"]+"]", "info"),
		"token":       strings.Replace(file(secrets["a literal"], "info"), "${file:", "${filed:", 1),
	} {
		site.write("hsu.yaml", faulty)
		for _, r := range []harness.Result{site.CLI("reload"), site.CLI("config", "check", site.path("hsu.yaml"))} {
			if r.Code == 0 {
				t.Errorf("a file with a wrong %s is accepted", name)
			}
			out["faulty "+name] += r.Stdout + r.Stderr
		}
		m.Signal(syscall.SIGHUP)
		reloads++
		harness.WaitFor(t, "the signal is handled", func() error {
			if n := len(m.Logged("reload failed")); n < reloads {
				return fmt.Errorf("%d failed reloads are logged", n)
			}
			return nil
		})
	}
	// A value changes, then the next master finds another one.
	site.write("hsu.yaml", file(secrets["a literal"], "debug"))
	r := site.CLI("reload")
	out["reload"] = r.Stdout + r.Stderr
	m.Kill()
	site.write("token", secrets["a file"]+"2")
	ask("offline")
	m = site.start()
	if w := site.await("starting-0", "is outdated", func(w harness.Worker) bool { return w.Outdated }); w.PID == 0 {
		t.Errorf("%+v, want it kept", w)
	}
	ask("second")
	m.Stop()
	ask("stopped")

	out["config show"] = site.CLI("config", "show", site.path("hsu.yaml")).Stdout
	if !strings.Contains(out["config show"], secrets["a literal"]) {
		t.Error("config show does not show the literal of the file")
	}
	out["config show"] = strings.ReplaceAll(out["config show"], secrets["a literal"], "")
	for _, dir := range []string{site.State, site.folder} {
		collectOutputs(t, dir, out)
	}
	logs, err := filepath.Glob(filepath.Join(site.Dir, "master-*.log"))
	if err != nil || len(logs) != 2 {
		t.Errorf("logs %q, %v", logs, err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(text)
	}
	for _, own := range []string{"hsu.yaml", "token", "more.env"} {
		delete(out, site.path(own))
	}
	if where := "its output may have values of its environment: see " + site.State; !strings.Contains(
		out["offline state dump --json"], where) {
		t.Errorf("without a master, state dump does not tell where the output of talking-0 is")
	}
	if len(out) < 60 || !strings.Contains(out["second worker list --json"], "sleeping-0") ||
		out[filepath.Join(site.State, "state.db")] == "" {
		t.Errorf("only %d outputs and files are searched", len(out))
	}
	for where, text := range out {
		for origin, secret := range secrets {
			if strings.Contains(text, secret) {
				i := strings.Index(text, secret)
				t.Errorf("%s shows the value from %s: %q", where, origin, text[max(0, i-80):min(len(text), i+60)])
			}
		}
	}
	site.WantNothingLeft()
}

// collect adds the content of the files below a folder, besides the output of workers.
func collectOutputs(t *testing.T, dir string, to map[string]string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "logs":
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		to[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key that is lost costs nothing but a mark.
func TestLostKeyOfEnvironments(t *testing.T) {
	t.Parallel()
	site := newSite(t, map[string]string{
		"hsu.yaml": "units:\n  a: {kind: managed, command: [sleep, \"1000\"], environment: {TOKEN: first-value}}\n",
	})
	m := site.start()
	before := site.awaitUp(1).Worker(t, "a-0")
	key := filepath.Join(site.State, "secret.key")
	info, err := os.Stat(key)
	if err != nil || info.Mode() != 0o600 || info.Size() != 32 {
		t.Errorf("secret.key is %v, %v, want 32 bytes with the mode 0600", info, err)
	}
	m.Kill()
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	m = site.start()
	w := site.await("a-0", "is outdated", func(w harness.Worker) bool { return w.Outdated && w.PID == before.PID })
	const why = "its environment may have changed: it was recorded with another key than that of secret.key"
	if list := site.CLI("worker", "list").Stdout; w.Reason != "outdated: "+why || !strings.Contains(list, why) {
		t.Errorf("%+v, want the reason %q; worker list:\n%s", w, why, list)
	}
	if plan := site.CLI("state", "plan", "--config", site.path("hsu.yaml")).Stdout; !strings.Contains(plan, why) {
		t.Errorf("state plan does not say %q:\n%s", why, plan)
	}
	if n := len(m.Logged("secret key lost")); n != 1 {
		t.Errorf("the lost key is logged %d times, want once", n)
	}
	if r := site.CLI("reload"); r.Code != 0 || !strings.Contains(r.Stdout, "nothing has changed") {
		t.Errorf("reload: %+v, want no change", r)
	}
	if w := site.Dump().Worker(t, "a-0"); w.PID != before.PID || !w.Outdated {
		t.Errorf("%+v, want process %d kept and outdated", w, before.PID)
	}
	// A link is refused, and the workers live on.
	m.Kill()
	if err := os.Symlink("/dev/null", key+strconv.Itoa(m.PID)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(key+strconv.Itoa(m.PID), key); err != nil {
		t.Fatal(err)
	}
	m = site.Launch(site.Program, nil)
	m.WantExit(1)
	if log := m.Log(); !strings.Contains(log, "secret.key: not a regular file but a symbolic link: move it away") {
		t.Errorf("the error is %s", log)
	}
	if r := site.CLI("state", "check"); r.Code != 5 || !strings.Contains(r.Stdout, "error: secret.key: ") {
		t.Errorf("state check: %+v, want the fault", r)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	m = site.start()
	if w := site.awaitUp(1).Worker(t, "a-0"); w.PID != before.PID {
		t.Errorf("%+v, want process %d adopted", w, before.PID)
	}
	m.Stop()
	site.WantNothingLeft()
}

// The last output of a worker does not begin before the last change of its environment: the earlier values cannot be
// recognised any more.
func TestValuesOfAnEarlierEnvironmentAreNotShown(t *testing.T) {
	t.Parallel()
	const text = `
units:
  bad:
    kind: managed
    command: [sh, -c, "echo the token is $$TOKEN; exit 1"]
    environment: {TOKEN: VALUE}
    restart: {policy: never}
`
	site := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "VALUE", "former-value")})
	want := []string{"the token is $TOKEN"}
	failed := func(incarnation int) func(harness.Worker) bool {
		return func(w harness.Worker) bool { return w.Status == "failed" && int(w.Incarnation) == incarnation }
	}
	m := site.start()
	if w := site.await("bad-0", "fails", failed(1)); !slices.Equal(w.LastOutput, want) {
		t.Errorf("the first output is shown as %q, want %q", w.LastOutput, want)
	}
	site.write("hsu.yaml", strings.ReplaceAll(text, "VALUE", "latter-value"))
	site.CLI("reload") // says that the worker fails
	if w := site.await("bad-0", "fails again", failed(2)); !slices.Equal(w.LastOutput, want) {
		t.Errorf("the second output is shown as %q, want %q", w.LastOutput, want)
	}
	// This file has a value that the next master does not know of.
	m.Kill()
	site.write("hsu.yaml", strings.ReplaceAll(text, "VALUE", "latest-value"))
	m = site.start()
	shown := site.await("bad-0", "has failed", func(w harness.Worker) bool { return w.Status == "failed" }).LastOutput
	if all := strings.Join(shown, "\n"); strings.Contains(all, "-value") || len(shown) != 1 {
		t.Errorf("the next master shows %q", shown)
	}
	m.Stop()
	site.WantNothingLeft()
}
