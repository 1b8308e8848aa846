// Package s3blob keeps what is too large for a table of DynamoDB as objects in a bucket of
// Amazon S3: a Store is what dynamolog.WithBlobs takes.
//
// Objects are removed when their request's log is. A lifecycle rule on the prefix catches what a
// process left that died in between; it must be longer than any request and its retention.
package s3blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// Client is what is needed of an *s3.Client.
type Client interface {
	PutObject(context.Context, *s3.PutObjectInput, ...func(*s3.Options)) (*s3.PutObjectOutput, error)
	GetObject(context.Context, *s3.GetObjectInput, ...func(*s3.Options)) (*s3.GetObjectOutput, error)
	DeleteObject(context.Context, *s3.DeleteObjectInput, ...func(*s3.Options)) (*s3.DeleteObjectOutput, error)
}

// Store keeps blobs in a bucket. All methods may be called concurrently, and call S3 as often
// as the client's configuration says.
type Store struct {
	client Client
	bucket string
	prefix string
}

// New returns the store of the objects of a bucket whose keys begin with prefix, such as
// "streamer/". It calls nothing: the bucket must exist, in the client's region.
func New(client Client, bucket, prefix string) *Store {
	return &Store{client: client, bucket: bucket, prefix: prefix}
}

// Put stores data under a name, in the place of what was there.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: s.key(name), Body: bytes.NewReader(data)})
	return s.failed("put", name, err)
}

// maxBlob bounds what Get reads, in bytes: dynamolog puts no more.
const maxBlob = 64 << 20

// Get returns what is stored under a name.
func (s *Store) Get(ctx context.Context, name string) ([]byte, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name)})
	if err != nil {
		return nil, s.failed("get", name, err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(io.LimitReader(out.Body, maxBlob+1))
	if err == nil && len(data) > maxBlob {
		err = fmt.Errorf("it has more than %d bytes", maxBlob)
	}
	return data, s.failed("get", name, err)
}

// Delete removes what is stored under a name, if there is anything.
func (s *Store) Delete(ctx context.Context, name string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(name)})
	return s.failed("delete", name, err)
}

func (s *Store) key(name string) *string { return new(s.prefix + name) }

// failed says what could not be done, and with which object.
func (s *Store) failed(what, name string, err error) error {
	if err == nil {
		return nil
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == "NoSuchBucket" {
		err = fmt.Errorf("%w: make the bucket, in the client's region", err)
	}
	return fmt.Errorf("s3blob: %s %s%s in bucket %s: %w", what, s.prefix, name, s.bucket, err)
}
