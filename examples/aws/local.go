package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/pay-theory/streamer/v2/client"
	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// invitation is what can be done with the service: it gets the host, the process, what finds
// the emulators, and the flags.
const invitation = `
In another terminal, an export that takes 20 s; its parts and its progress as they come:
  curl -N http://%[1]s/api/requests -H "Content-Type: application/json" -H "Accept: text/event-stream" -d '{"action":"export_data","id":"orders-1","payload":{"year":2026,"seconds":20}}'
Kill the service meanwhile. It is started again here, and the export goes on: the same curl shows all of it.
  kill -9 %[2]d
How it stands, and how it ended:
  curl http://%[1]s/api/requests/orders-1 -H "Prefer: wait=30"
By WebSocket:
  npx wscat -c ws://%[1]s/api/ws
  > {"action":"export_data","id":"orders-2","payload":{"year":2026,"seconds":20}}
One more worker on the same queue and table:
  %[3]s go run ./examples/aws -role worker -addr 127.0.0.1:0 %[4]s
Ctrl-C stops.
`

// lease is how long the export of a service that was killed waits for the next one.
const lease = 5 * time.Second

// local runs the service on emulators, as a process of its own: when that is killed, it is
// started again.
func local(ctx context.Context, s settings, stdout, stderr io.Writer) (err error) {
	fmt.Fprintln(stdout, "starting emulators of SQS and DynamoDB")
	tickets, err := awstest.StartSQS(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tickets.Close()) }()
	requests, err := awstest.StartDynamoDB(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, requests.Close()) }()
	env := environment(tickets.Endpoint(), requests.Endpoint())
	flags, err := create(ctx, tickets.Endpoint(), requests.Endpoint(), lease)
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p := &service{
		addr: free(s.addr, stdout), flags: flags, env: env, stdout: stdout, stderr: stderr,
		serves: make(chan struct{}), ended: make(chan error, 1),
	}
	go func() {
		defer stop()
		p.ended <- p.run(ctx)
	}()
	select {
	case <-ctx.Done():
		return <-p.ended
	case <-p.serves:
	}
	err = try(ctx, stdout, "ws://"+p.addr+"/api/ws")
	if err == nil && !s.once {
		fmt.Fprintf(stdout, invitation, p.addr, p.pid, strings.Join(env, " "), strings.Join(flags, " "))
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		err = nil // Ctrl-C, or the service says what is wrong
	}
	fmt.Fprintln(stdout, "stopping")
	stop()
	return errors.Join(err, <-p.ended)
}

// environment returns what a process finds the emulators by.
func environment(sqs, dynamoDB string) []string {
	return []string{
		"AWS_ENDPOINT_URL_SQS=" + sqs, "AWS_ENDPOINT_URL_DYNAMODB=" + dynamoDB,
		"AWS_REGION=" + awstest.Region, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local",
	}
}

// create makes a queue, one for its dead letters, and a table, and returns the flags for them.
func create(ctx context.Context, sqsURL, dynamoURL string, lease time.Duration) (flags []string, err error) {
	cfg := aws.Config{
		Region: awstest.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "local", SecretAccessKey: "local"}, nil
		}),
	}
	queues := sqs.NewFromConfig(cfg, func(o *sqs.Options) { o.BaseEndpoint = &sqsURL })
	tables := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = &dynamoURL })

	const twoWeeks = "1209600"
	dead, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: new("tickets-dead"), Attributes: map[string]string{"MessageRetentionPeriod": twoWeeks},
	})
	if err != nil {
		return nil, err
	}
	of, err := queues.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: dead.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return nil, err
	}
	policy, err := json.Marshal(map[string]string{"deadLetterTargetArn": of.Attributes["QueueArn"], "maxReceiveCount": "100"})
	if err != nil {
		return nil, err
	}
	queue, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: new("tickets"),
		Attributes: map[string]string{
			"VisibilityTimeout":      fmt.Sprint(int(lease.Seconds())),
			"MessageRetentionPeriod": twoWeeks,
			"RedrivePolicy":          string(policy),
		},
	})
	if err != nil {
		return nil, err
	}
	const table = "streamer"
	if err := dynamolog.CreateTable(ctx, tables, table); err != nil {
		return nil, err
	}
	return []string{"-queue", *queue.QueueUrl, "-dead", *dead.QueueUrl, "-table", table, "-without-ttl", "-poll", "1s"}, nil
}

// free returns an address, or one with a free port where that is taken.
func free(addr string, stdout io.Writer) string {
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Fprintf(stdout, "%s is taken, using a free port\n", addr)
		return "127.0.0.1:0"
	}
	if err == nil {
		listener.Close()
	}
	return addr // what else is wrong with it, the service says
}

// service is a process that is started again when it ends without an error.
type service struct {
	addr           string // when it serves: where
	flags, env     []string
	stdout, stderr io.Writer

	pid    int           // when it serves: of its first process
	serves chan struct{} // closed when it does
	ended  chan error    // gets what run returns
}

// run returns when ctx has ended and the process with it, or with the error of the process.
func (p *service) run(ctx context.Context) error {
	for {
		state, err := p.process(ctx)
		switch {
		case ctx.Err() != nil && state != nil && state.Success():
			return nil
		case ctx.Err() != nil || state == nil || state.ExitCode() > 0:
			return fmt.Errorf("the service: %w", err)
		}
		fmt.Fprintf(p.stdout, "the service has ended (%v), and is started again\n", state)
	}
}

// process runs the service once.
func (p *service) process(ctx context.Context) (*os.ProcessState, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-addr", p.addr}, p.flags...)...)
	cmd.Env = only(p.env)
	cmd.Stderr = p.stderr
	// After Ctrl-C it has got an interrupt as well, which is the same to it.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * (drain + closing)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintf(p.stdout, "%s, process %d\n", lines.Text(), cmd.Process.Pid)
		if host, ok := strings.CutPrefix(lines.Text(), serving); ok && p.pid == 0 {
			p.addr, p.pid = host, cmd.Process.Pid
			close(p.serves)
		}
	}
	err = cmd.Wait()
	return cmd.ProcessState, err
}

// only returns the environment of this process, with env in place of all that the AWS SDK looks at.
func only(env []string) []string {
	all := append([]string{"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}, env...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "AWS_") {
			all = append(all, e)
		}
	}
	return all
}

// try is all that a client needs. It would go on across a lost connection, too.
func try(ctx context.Context, out io.Writer, url string) error {
	c, err := client.New(url)
	if err != nil {
		return err
	}
	defer c.Close()
	request, err := c.Submit(ctx, "export_data", Params{Year: 2025, Seconds: 3})
	if err != nil {
		return err
	}
	for e, err := range request.Events(ctx) {
		if err != nil {
			return err
		}
		switch e.Kind {
		case client.Progressed:
			fmt.Fprintf(out, "%3.0f %%  %s\n", e.Progress.Percentage, e.Progress.Message)
		case progress.Output:
			var part Part
			if err := json.Unmarshal(e.Data, &part); err != nil {
				return err
			}
			fmt.Fprintf(out, "output: %s, %d lines of CSV\n", part.Month, strings.Count(part.CSV, "\n"))
		case progress.Completed:
			fmt.Fprintf(out, "completed: %s\n", e.Data)
		default:
			fmt.Fprintln(out, e.Kind)
		}
	}
	return nil
}
