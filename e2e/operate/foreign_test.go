//go:build e2e && linux

package operate

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
)

// dialAdmin connects to the admin socket, as the user if that is not the one of the test.
func dialAdmin(t *testing.T, h *harness.Host, uid int) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (conn net.Conn, err error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // and never unlocked, so that the thread ends with the goroutine
				if uid != os.Geteuid() {
					// The kernel has a user for each thread, and tells the listener that of the one that connects.
					if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
						err = e
						return
					}
				}
				var dialer net.Dialer
				conn, err = dialer.DialContext(ctx, "unix", filepath.Join(h.State, "run", "admin.sock"))
			}()
			<-done
			return conn, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// methodsOf returns all methods of the services of a server, by the server's reflection.
func methodsOf(t *testing.T, conn *grpc.ClientConn) (methods []protoreflect.MethodDescriptor) {
	t.Helper()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	services := ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	})
	for _, s := range services.GetListServicesResponse().GetService() {
		files := ask(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
				FileContainingSymbol: s.GetName(),
			},
		})
		for _, raw := range files.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := new(descriptorpb.FileDescriptorProto)
			if err := proto.Unmarshal(raw, file); err != nil {
				t.Fatal(err)
			}
			described, err := protodesc.FileOptions{AllowUnresolvable: true}.New(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range described.Services().Len() {
				for k := range described.Services().Get(i).Methods().Len() {
					methods = append(methods, described.Services().Get(i).Methods().Get(k))
				}
			}
		}
	}
	return methods
}

// call calls a method with an empty message, and returns its status.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{
		ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer(),
	}, fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()))
	if err == nil {
		_ = stream.SendMsg(&emptypb.Empty{}) // RecvMsg returns the reason of a failure
		_ = stream.CloseSend()
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return status.Code(err)
}

// Another user than root and that of the master can do nothing at the admin socket, whatever its mode is.
func TestAnotherUserMayNotAdminister(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "asks as another user, which only root may")
	}
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(harness.Programs.Dir, 0o711)
	chmod(h.Dir, 0o711)
	if err := os.Mkdir(filepath.Join(h.Dir, "open"), 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(filepath.Join(h.Dir, "open"), 0o777)
	wantRefused(t, h, "permission denied")
	chmod(h.State, 0o711)
	chmod(filepath.Join(h.State, "run"), 0o711)
	chmod(filepath.Join(h.State, "run", "admin.sock"), 0o666)
	wantRefused(t, h, fmt.Sprintf("user %d may not administer this master", harness.Nobody))
	foreign := dialAdmin(t, h, harness.Nobody)
	methods := methodsOf(t, dialAdmin(t, h, os.Geteuid()))
	if least := 20; len(methods) < least {
		t.Errorf("the admin socket has %d methods, want %d at least", len(methods), least)
	}
	for _, method := range methods {
		if got := call(t, foreign, method); got != codes.PermissionDenied {
			t.Errorf("%s of another user ends with %s, want PERMISSION_DENIED", method.FullName(), got)
		}
	}
	h.AwaitRunning(2).WantInstances(t, want)
	h.Ask("after the attempts") // the port for requests is open to everybody
	m.Stop()
	snap, err := store.ReadSnapshot(h.State)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range snap.Events {
		if e.Operator != nil {
			t.Errorf("an event has an operator: %+v", e)
		}
	}
	h.WantNothingLeft()
}

// wantRefused expects that another user's commands fail with the text.
func wantRefused(t *testing.T, h *harness.Host, text string) {
	t.Helper()
	for _, command := range []string{
		"worker list", "worker start worker-0", "worker stop --all", "worker restart worker",
		"worker signal TERM worker-0", "worker scale worker=1", "worker logs worker-0",
		"worker inspect worker-0",
		"unit list", "unit disable worker", "why worker-0", "events", "reload", "state dump",
		"state backup " + filepath.Join(h.Dir, "open", "backup.db"),
		"service list", "upgrade", "detach", "down",
	} {
		cmd := exec.CommandContext(t.Context(), harness.Programs.Master,
			append(strings.Fields(command), "--state-dir", h.State, "--runtime-dir", filepath.Join(h.State, "run"))...)
		cmd.Env = harness.CleanEnviron()
		nobody := &syscall.Credential{Uid: harness.Nobody, Gid: harness.Nobody}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		output, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(output), text) {
			t.Errorf("%s of another user: %v, want %q: %s", command, err, text, output)
		}
	}
}
