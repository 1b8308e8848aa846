package dynamolog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/pay-theory/streamer/v2/progress"
)

// indexName names the index of what Open looks for.
const indexName = "open"

// inspect returns what of the table does not fit.
func (l *Log) inspect(ctx context.Context) error {
	table, err := l.describe(ctx)
	if err != nil {
		return opening(ctx, "DescribeTable", err)
	}
	if err := checkTable(table); err != nil {
		return err
	}
	if l.stream != nil {
		if err := l.stream.inspect(ctx, table); err != nil {
			return err
		}
	}
	if l.cfg.withoutTTL {
		return nil
	}
	var ttl *types.TimeToLiveDescription
	_, err = l.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := l.client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &l.table}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		ttl = out.TimeToLiveDescription
		return out.ResultMetadata, nil
	})
	if err != nil {
		return opening(ctx, "DescribeTimeToLive", err)
	}
	return checkTTL(ttl)
}

func (l *Log) describe(ctx context.Context) (table *types.TableDescription, err error) {
	_, err = l.do(ctx, func(ctx context.Context) (middleware.Metadata, error) {
		out, err := l.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &l.table}, once)
		if err != nil {
			return middleware.Metadata{}, err
		}
		table = out.Table
		return out.ResultMetadata, nil
	})
	return table, err
}

// opening says what New could not do.
func opening(ctx context.Context, operation string, err error) error {
	if code(err) == "AccessDeniedException" {
		return fmt.Errorf("%w: the role lacks dynamodb:%s on it: %w", progress.ErrUnavailable, operation, err)
	}
	return translate(ctx, err)
}

// checkTable returns what of a table's definition does not fit.
func checkTable(t *types.TableDescription) error {
	if t == nil {
		return fmt.Errorf("%w: DescribeTable says nothing of it", progress.ErrUnavailable)
	}
	switch t.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
	case types.TableStatusCreating:
		return fmt.Errorf("%w: it is still being created: wait until it is ACTIVE", progress.ErrUnavailable)
	default:
		return fmt.Errorf("%w: its status is %s, ACTIVE is needed", progress.ErrUnavailable, t.TableStatus)
	}
	kinds := make(map[string]types.ScalarAttributeType)
	for _, a := range t.AttributeDefinitions {
		kinds[str(a.AttributeName)] = a.AttributeType
	}
	if have, want := schema(t.KeySchema, kinds), "p (S, HASH), s (S, RANGE)"; have != want {
		return fmt.Errorf("its primary key is %s, and %s is needed: make a table of its own for this log", have, want)
	}
	for _, i := range t.GlobalSecondaryIndexes {
		if str(i.IndexName) != indexName {
			continue
		}
		if have, want := schema(i.KeySchema, kinds), "o (S, HASH), w (N, RANGE)"; have != want {
			return fmt.Errorf("its index %s has the key %s, and %s is needed: delete the index and make it anew", indexName, have, want)
		}
		if p := i.Projection; p == nil || p.ProjectionType != types.ProjectionTypeKeysOnly {
			return fmt.Errorf("its index %s does not project KEYS_ONLY, and so each write would be paid for twice: delete the index and make it anew", indexName)
		}
		if i.IndexStatus == types.IndexStatusCreating || i.IndexStatus == types.IndexStatusDeleting {
			return fmt.Errorf("%w: its index %s is %s: wait until it is ACTIVE", progress.ErrUnavailable, indexName, i.IndexStatus)
		}
		return nil
	}
	return fmt.Errorf("it lacks the global secondary index %s with the key o (S, HASH), w (N, RANGE) and the projection KEYS_ONLY: make it", indexName)
}

// schema returns a key as text.
func schema(key []types.KeySchemaElement, kinds map[string]types.ScalarAttributeType) string {
	s := ""
	for i, k := range key {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%s (%s, %s)", str(k.AttributeName), kinds[str(k.AttributeName)], k.KeyType)
	}
	return s
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// checkTTL returns what of a table's time to live does not fit.
func checkTTL(ttl *types.TimeToLiveDescription) error {
	if ttl != nil && (ttl.TimeToLiveStatus == types.TimeToLiveStatusEnabled || ttl.TimeToLiveStatus == types.TimeToLiveStatusEnabling) {
		if have := str(ttl.AttributeName); have != attrTTL {
			return fmt.Errorf("its time to live is on for the attribute %q, and %q is needed: turn it off, and on for that", have, attrTTL)
		}
		return nil
	}
	return fmt.Errorf("its time to live is off, so that nothing would ever be removed: turn it on for the attribute %q, or say WithoutTTL", attrTTL)
}

// Creator is what CreateTable needs of a *dynamodb.Client.
type Creator interface {
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	UpdateTimeToLive(context.Context, *dynamodb.UpdateTimeToLiveInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error)
}

// CreateTable makes a table for New, paid for on demand, and waits until it can be used. It is
// meant for development and tests: what runs in production defines its table where it defines
// the rest. A table that is there already is an error. So is time to live that can't be turned
// on, unless the server does not know it at all, as emulators: such a table needs WithoutTTL.
func CreateTable(ctx context.Context, client Creator, table string) error {
	_, err := client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: new(attrPath), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: new(attrSort), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: new(attrList), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: new(attrSince), AttributeType: types.ScalarAttributeTypeN},
		},
		KeySchema: keySchema(attrPath, attrSort),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: new(indexName), KeySchema: keySchema(attrList, attrSince),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
		}},
	})
	if err == nil {
		err = dynamodb.NewTableExistsWaiter(client, quick).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &table}, creation)
	}
	if err == nil {
		_, err = client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
			TableName:               &table,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: new(attrTTL), Enabled: new(true)},
		})
		if unknownOperation(err) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("dynamolog: create table %q: %w", table, err)
	}
	return nil
}

const creation = 5 * time.Minute // how long a table may take to be there

func quick(o *dynamodb.TableExistsWaiterOptions) {
	o.MinDelay, o.MaxDelay = 20*time.Millisecond, 2*time.Second
}

func keySchema(hash, sort string) []types.KeySchemaElement {
	return []types.KeySchemaElement{
		{AttributeName: &hash, KeyType: types.KeyTypeHash},
		{AttributeName: &sort, KeyType: types.KeyTypeRange},
	}
}

func unknownOperation(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && api.ErrorCode() == "UnknownOperationException"
}
