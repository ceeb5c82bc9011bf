package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The other proxies that a row is compared with, by their Debian packages.
const (
	peerNginx   = "nginx"
	peerHAProxy = "haproxy"
)

var peerNames = map[string]string{peerNginx: "nginx grpc_pass", peerHAProxy: "HAProxy"}

// Both have two workers, one for each processor of the machine that this was written on. They keep their
// connections to the server open, write no log, and allow as many streams and requests per connection as the load
// needs. All other settings are the defaults. One worker or thread, nginx with reuseport, multi_accept or a smaller
// pool, and HAProxy with http-reuse safe gave the same results within the variation between runs.
const (
	nginxConfig = `worker_processes 2;
worker_rlimit_nofile 16384;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log warn;
events { worker_connections 8192; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream workers {
		server %[3]s;
		keepalive 512;
		keepalive_requests 1000000000;
	}
	server {
		listen %[2]s http2;
		http2_max_concurrent_streams 1024;
		keepalive_requests 1000000000;
		client_max_body_size 0;
		location / { grpc_pass grpc://workers; }
	}
}
`
	haproxyConfig = `global
	nbthread 2
	maxconn 4096
	tune.h2.max-concurrent-streams 1024
defaults
	mode http
	timeout connect 10s
	timeout client 1m
	timeout server 1m
	http-reuse always
frontend port
	bind %[1]s %[2]s
	default_backend workers
backend workers
	server worker %[3]s proto h2 pool-max-conn -1
`
)

// peer is a running proxy.
type peer struct {
	address string
	pids    []int
	cmd     *exec.Cmd
	stderr  tail
	ended   chan struct{}
	once    sync.Once
}

// findPeer returns the path of a proxy, and downloads the proxy if the machine has none. It installs nothing: it
// unpacks the packages into the lab's directory, so that no other server is started on this machine.
func (l *lab) findPeer(ctx context.Context, name string) (program string, err error) {
	if found, ok := l.peers[name]; ok {
		return found.program, found.err
	}
	defer func() {
		if l.peers == nil {
			l.peers = make(map[string]foundPeer)
		}
		l.peers[name] = foundPeer{program, err}
	}()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	l.say("%s is not installed, its Debian package is fetched", name)
	root := filepath.Join(l.dir, "peer-"+name)
	if err := fetchPackage(ctx, root, name); err != nil {
		return "", fmt.Errorf("%s is not installed and cannot be fetched by apt-get: %w", name, err)
	}
	return filepath.Join(root, "usr/sbin", name), nil
}

type foundPeer struct {
	program string
	err     error
}

// fetchPackage unpacks a Debian package below root, with those of its dependencies that are not installed.
func fetchPackage(ctx context.Context, root, name string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	run := func(program string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = root
		var stderr tail
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s %s: %w%s", program, args[0], err, stderr.text())
		}
		return string(out), err
	}
	list := []string{"install", "--print-uris", "-qq", "-y", "--no-install-recommends", name}
	uris, err := run("apt-get", list...)
	if err != nil && os.Geteuid() == 0 { // the package lists of a machine may have been removed
		if _, err = run("apt-get", "update", "-qq"); err == nil {
			uris, err = run("apt-get", list...)
		}
	}
	if err != nil {
		return err
	}
	// Each line is: 'http://…' NAME_VERSION_ARCH.deb SIZE HASH
	for line := range strings.Lines(uris) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		pkg, _, _ := strings.Cut(fields[1], "_")
		if _, err := run("apt-get", "download", "-qq", pkg); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(root, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := run("dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	return nil
}

// libraries returns the directories of the libraries that were unpacked with a program.
func libraries(program string) string {
	root := filepath.Join(filepath.Dir(program), "../..")
	dirs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu")) // the pattern is right
	return strings.Join(dirs, ":")
}

// startPeer starts a proxy in front of a worker. With secure HAProxy serves TLS.
func (l *lab) startPeer(ctx context.Context, name, worker string, secure *certificate) (_ *peer, err error) {
	program, err := l.findPeer(ctx, name)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("take a free port: %w", err)
	}
	p := &peer{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), ended: make(chan struct{})}
	text := fmt.Sprintf(nginxConfig, dir, p.address, worker)
	args := []string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-g", "daemon off;", "-c"}
	if name == peerHAProxy {
		text, args = fmt.Sprintf(haproxyConfig, p.address, secure.haproxy(), worker), []string{"-db", "-f"}
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure %s: %w", name, err)
	}
	p.cmd = exec.Command(program, append(args, config)...)
	if strings.HasPrefix(program, l.dir) {
		p.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries(program))
	}
	p.cmd.SysProcAttr = ownGroup()
	p.cmd.Stderr, p.cmd.Stdout = &p.stderr, &p.stderr
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w%s", name, errors.Join(err, p.stop()), p.stderr.text())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	if err := awaitPort(ctx, p.address, p.ended); err != nil {
		return nil, err
	}
	p.pids = []int{p.cmd.Process.Pid}
	// The listening socket exists before nginx's workers do.
	for wanted := map[string]int{peerNginx: 2}[name]; ; {
		children, err := childrenOf(p.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		if len(children) >= wanted {
			p.pids = append(p.pids, children...)
			return p, nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// childrenOf lists the children of a process with one thread.
func childrenOf(pid int) ([]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, fmt.Errorf("list the children of process %d: %w", pid, err)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("list the children of process %d: %w", pid, err)
		}
		pids = append(pids, child)
	}
	return pids, nil
}

func (p *peer) stop() error {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // the process may have exited already
		defer time.AfterFunc(childPatience, func() { _ = p.cmd.Process.Kill() }).Stop()
		<-p.ended
	})
	return nil
}
