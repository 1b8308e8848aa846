package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A server runs in a process of its own, so that what it uses can be told from what the load
// client uses. The harness starts itself again with this variable set to the role, and talks
// to the child over its standard input and output; the child ends when its input does.
const roleVariable = "STREAMER_BENCH_ROLE"

const (
	roleFloor   = "floor"
	roleProduct = "product"
	roleCrowd   = "crowd" // the product with room for thousands of running handlers

	roleNATSFloor   = "nats-floor"
	roleNATSProduct = "nats-product"
	roleNATSServer  = "nats-server"  // a NATS server for the two, at its addr
	roleNATSGateway = "nats-gateway" // the product without a worker
	roleNATSWorker  = "nats-worker"  // the product with room for thousands of running handlers

	roleAWSFloor   = "aws-floor"
	roleAWSProduct = "aws-product"
	roleAWSQueue   = "aws-queue" // the product with logs in memory
)

// Variables of the processes that need NATS.
const (
	natsVariable = "STREAMER_BENCH_NATS" // where the server is; without it the process has one of its own
	dirVariable  = "STREAMER_BENCH_DIR"  // where that one stores; without it in a directory that is removed
	syncVariable = "STREAMER_BENCH_SYNC" // set: that one syncs each write
)

// Variables of the processes that need AWS.
const (
	sqsVariable    = "STREAMER_BENCH_SQS"      // endpoint
	dynamoVariable = "STREAMER_BENCH_DYNAMODB" // endpoint
	unitsVariable  = "STREAMER_BENCH_UNITS"    // set: units of DynamoDB are counted
)

// child is the harness's end of a server process.
type child struct {
	role string
	addr string
	rpc  *rpc.Client
	cmd  *exec.Cmd
}

// spawn starts a server process and waits until it serves. env adds to its environment.
func spawn(role string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{role: role, rpc: jsonrpc.NewClient(pipe{out, in}), cmd: cmd}
	if err := c.rpc.Call("Control.Addr", none{}, &c.addr); err != nil {
		return nil, errors.Join(fmt.Errorf("%s server: %w", role, err), c.close())
	}
	return c, nil
}

// close ends the process and waits for it.
func (c *child) close() error {
	c.rpc.Close()
	return c.cmd.Wait()
}

// kill ends the process as a crash does.
func (c *child) kill() error {
	err := c.cmd.Process.Kill()
	c.rpc.Close()
	c.cmd.Wait() //nolint:errcheck // it says that the process was killed
	return err
}

// hello is a client's first message to the server.
func (c *child) hello() string {
	if c.role == roleFloor || c.role == roleNATSFloor || c.role == roleAWSFloor {
		return "" // they know none
	}
	return `{"type":"hello","v":1,"caps":["batch"],"client":"bench"}`
}

// helloResuming is the first message of a client that comes back to a request.
func helloResuming(id, epoch string, after uint64) string {
	cursor := fmt.Sprintf(`{"id":%q,"epoch":%q,"after":%d}`, id, epoch, after)
	if epoch == "" {
		cursor = fmt.Sprintf(`{"id":%q,"after":%d}`, id, after)
	}
	return `{"type":"hello","v":1,"caps":["batch"],"client":"bench","resume":[` + cursor + `]}`
}

// spent returns what the process's calls of AWS have cost so far.
func (c *child) spent() (s Spent, err error) {
	err = c.rpc.Call("Control.Spent", none{}, &s)
	return s, err
}

// cpu returns the processor time that the process has used.
func (c *child) cpu() (d time.Duration, err error) {
	err = c.rpc.Call("Control.CPU", none{}, &d)
	return d, err
}

// settle has the process collect its garbage and give memory back, and returns what is left
// resident, in bytes. What peak returns counts from there.
func (c *child) settle() (resident int64, err error) {
	err = c.rpc.Call("Control.Settle", none{}, &resident)
	return resident, err
}

// live returns what the process has allocated and needs still, with its stacks, in bytes.
func (c *child) live() (bytes int64, err error) {
	err = c.rpc.Call("Control.Live", none{}, &bytes)
	return bytes, err
}

// peak returns the most that was resident since the last settle or mark, in bytes.
func (c *child) peak() (resident int64, err error) {
	err = c.rpc.Call("Control.Peak", none{}, &resident)
	return resident, err
}

// mark returns what is resident as it is, and starts a new peak.
func (c *child) mark() (resident int64, err error) {
	err = c.rpc.Call("Control.Mark", none{}, &resident)
	return resident, err
}

// logged returns what the requests' logs hold, in bytes.
func (c *child) logged() (bytes int64, err error) {
	err = c.rpc.Call("Control.Logged", none{}, &bytes)
	return bytes, err
}

// finished makes a request with n outputs that has ended and was shown to nobody.
func (c *child) finished(n int) (id string, err error) {
	err = c.rpc.Call("Control.Finished", n, &id)
	return id, err
}

// stuff makes n requests that end at once.
func (c *child) stuff(n int) error { return c.rpc.Call("Control.Stuff", n, &none{}) }

// hold makes n requests, held-0 and so on, that are quiet after their first output.
func (c *child) hold(n int) error { return c.rpc.Call("Control.Hold", n, &none{}) }

// fan makes the request that emit adds outputs to. The floor has but one anyway.
func (c *child) fan() error { return c.rpc.Call("Control.Fan", none{}, &none{}) }

// emit has n outputs made. It does not wait for them.
func (c *child) emit(n int) error { return c.rpc.Call("Control.Emit", n, &none{}) }

// cut closes all connections at once and keeps new ones out until all held handlers have
// emitted their next outputs.
func (c *child) cut() error { return c.rpc.Call("Control.Cut", none{}, &none{}) }

// release lets all held handlers end.
func (c *child) release() error { return c.rpc.Call("Control.Release", none{}, &none{}) }

func (c *child) startProfile(path string) error {
	return c.rpc.Call("Control.StartProfile", path, &none{})
}

func (c *child) stopProfile() error { return c.rpc.Call("Control.StopProfile", none{}, &none{}) }

type none = struct{}

type pipe struct {
	io.Reader
	io.WriteCloser
}

// serve is the main function of a server process.
func serve(role string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := &Control{addr: ln.Addr().String()}
	mux := http.NewServeMux()
	switch role {
	case roleFloor:
		hub := newHub()
		c.emits = hub.emits
		mux.Handle("/ws", newFloor())
		mux.Handle("GET /requests/{id}/events", hub)
		mux.Handle("POST /requests", newDesk())
	case roleProduct, roleCrowd:
		c.product = newProduct(role)
		c.emits = c.product.emits
		mux.Handle("/ws", c.product.sockets)
		mux.Handle("/", c.product.http)
		go c.product.run(ctx)
	case roleNATSFloor, roleNATSProduct, roleNATSServer, roleNATSGateway, roleNATSWorker:
		stop, err := c.serveNATS(ctx, role, mux)
		if err != nil {
			return err
		}
		defer stop()
	case roleAWSFloor, roleAWSProduct, roleAWSQueue:
		if err := c.serveAWS(ctx, role, mux); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s=%s: no such role", roleVariable, role)
	}
	server := &http.Server{Handler: mux}
	if role == roleCrowd {
		server.ConnState = c.door.state
	}
	go server.Serve(ln)
	control := rpc.NewServer()
	if err := control.Register(c); err != nil {
		return err
	}
	control.ServeCodec(jsonrpc.NewServerCodec(pipe{os.Stdin, os.Stdout}))
	return server.Close()
}

// Control is what a server process does for the harness.
type Control struct {
	addr    string
	product *product // nil: the floor
	emits   chan<- int
	meter   *meter // nil: it does not use AWS
	door    door
	profile *os.File
}

// Addr tells where the process serves.
func (c *Control) Addr(_ none, addr *string) error {
	*addr = c.addr
	return nil
}

// CPU tells the processor time used.
func (c *Control) CPU(_ none, used *time.Duration) (err error) {
	*used, err = cpuTime()
	return err
}

// Spent tells what calls of AWS have cost.
func (c *Control) Spent(_ none, s *Spent) error {
	*s = c.meter.read()
	return nil
}

func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// Settle collects garbage, returns memory to the system and begins a new peak.
func (c *Control) Settle(_ none, resident *int64) error {
	runtime.GC()
	runtime.GC() // what pools held is garbage only after the second
	debug.FreeOSMemory()
	return c.Mark(none{}, resident)
}

// Live collects garbage and tells what is left.
func (c *Control) Live(_ none, bytes *int64) error {
	runtime.GC()
	runtime.GC() // what pools held is garbage only after the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	*bytes = int64(m.HeapAlloc + m.StackInuse)
	return nil
}

// Mark begins a new peak.
func (c *Control) Mark(_ none, resident *int64) (err error) {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return err
	}
	*resident, err = memory("VmRSS:")
	return err
}

// Peak tells the most that was resident since the last mark.
func (c *Control) Peak(_ none, resident *int64) (err error) {
	*resident, err = memory("VmHWM:")
	return err
}

// memory returns a line of /proc/self/status, in bytes.
func memory(key string) (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := strings.CutPrefix(string(line), key); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", key)
}

// Logged tells what the logs hold.
func (c *Control) Logged(_ none, bytes *int64) error {
	*bytes = c.product.log.Stats().Bytes
	return nil
}

// Finished makes a request that has ended.
func (c *Control) Finished(n int, id *string) (err error) {
	*id, err = c.product.finished(n)
	return err
}

// Stuff makes n requests that end at once.
func (c *Control) Stuff(n int, _ *none) error { return c.product.stuff(n) }

// Hold makes n requests that are held, and waits until they are quiet.
func (c *Control) Hold(n int, _ *none) error {
	if c.product == nil {
		return nil
	}
	return c.product.hold(n)
}

// Fan makes the request that Emit is for.
func (c *Control) Fan(none, *none) error {
	if c.product == nil {
		return nil
	}
	return c.product.fan()
}

// Emit has outputs made.
func (c *Control) Emit(n int, _ *none) error {
	select {
	case c.emits <- n:
		return nil
	case <-time.After(patience):
		return errors.New("the request takes no orders for outputs any more")
	}
}

// Cut closes all connections and has the held handlers go on before it lets anyone in.
func (c *Control) Cut(none, *none) error {
	c.door.close()
	defer c.door.open()
	c.product.held.miss()
	return nil
}

// Release lets the held handlers end.
func (c *Control) Release(none, *none) error {
	c.product.held.release()
	return nil
}

// StartProfile writes a processor profile to path until StopProfile.
func (c *Control) StartProfile(path string, _ *none) (err error) {
	if c.profile, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(c.profile)
}

// StopProfile ends the profile.
func (c *Control) StopProfile(none, *none) error {
	pprof.StopCPUProfile()
	return c.profile.Close()
}

// raiseFileLimit makes room for the connections of the largest measurement.
func raiseFileLimit() error {
	const needed = 11_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= needed {
		return nil
	}
	limit.Cur, limit.Max = needed, max(limit.Max, needed)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d open files are needed: raise the limit (ulimit -n): %w", needed, err)
	}
	return nil
}
