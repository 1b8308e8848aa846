package fleet

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/pay-theory/streamer/v2/internal/awstest"
	"github.com/pay-theory/streamer/v2/progress/dynamolog"
)

// emulators stand in for AWS.
type emulators struct {
	sqs, dynamoDB *Process
	queue         string // its URL
}

const (
	queueName = "tickets"
	tableName = "streamer"
)

// emulate describes the emulators.
func emulate(spec Spec, ports *ports) (*emulators, error) {
	process := func(name string, command func(port int) (string, []string, error)) (*Process, error) {
		port := ports.next()
		path, args, err := command(port)
		if err != nil {
			return nil, err
		}
		p := newProcess(spec, name, AWS, fmt.Sprintf("127.0.0.1:%d", port), path, args)
		p.probe = p.located
		return p, nil
	}
	q, err := process("sqs", awstest.SQSCommand)
	if err != nil {
		return nil, err
	}
	d, err := process("dynamodb", awstest.DynamoDBCommand)
	if err != nil {
		return nil, err
	}
	return &emulators{sqs: q, dynamoDB: d}, nil
}

// located waits for the line with which an emulator says where it listens.
func (p *Process) located(_ context.Context, out io.Reader) error {
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil && strings.TrimSpace(line) != "http://"+p.Addr {
		err = fmt.Errorf("fleet: %s printed %q", p.Name, line)
	}
	return err
}

// The emulators take any key.
const (
	keyID  = "id"
	secret = "secret"
)

// create makes the queue, with a visibility timeout as short as the lease, and the table.
func (e *emulators) create(ctx context.Context, lease time.Duration) error {
	connections := &http.Transport{}
	defer connections.CloseIdleConnections()
	c := aws.Config{
		Region: awstest.Region, HTTPClient: &http.Client{Transport: connections},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}, nil
		}),
	}
	queues := sqs.NewFromConfig(c, func(o *sqs.Options) { o.BaseEndpoint = new("http://" + e.sqs.Addr) })
	made, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: new(queueName), Attributes: map[string]string{"VisibilityTimeout": strconv.Itoa(int(lease.Seconds()))},
	})
	if err != nil {
		return fmt.Errorf("fleet: create the queue: %w", err)
	}
	at, err := url.Parse(*made.QueueUrl)
	if err != nil {
		return fmt.Errorf("fleet: the emulator's URL of the queue: %w", err)
	}
	e.queue = "http://" + e.sqs.Addr + at.Path // the emulator names a host that does not exist
	return dynamolog.CreateTable(ctx, dynamodb.NewFromConfig(c, func(o *dynamodb.Options) { o.BaseEndpoint = new("http://" + e.dynamoDB.Addr) }), tableName)
}

// labArgs returns what has a lab use the emulators.
func (e *emulators) labArgs() []string {
	return []string{"-sqs", e.queue, "-dynamo", "http://" + e.dynamoDB.Addr, "-table", tableName}
}

// env returns what a lab's AWS SDK looks for in its environment.
func (e *emulators) env() []string {
	return []string{"AWS_REGION=" + awstest.Region, "AWS_ACCESS_KEY_ID=" + keyID, "AWS_SECRET_ACCESS_KEY=" + secret}
}
