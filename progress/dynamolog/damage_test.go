package dynamolog_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func num(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }

// damage changes the item whose sort key has a part, or removes it where change is nil.
func (c *client) damage(t *testing.T, part string, change func(it map[string]types.AttributeValue)) {
	t.Helper()
	for name, it := range c.items(t) {
		if !strings.Contains(name, part) {
			continue
		}
		s := c.Client.(service)
		if change == nil {
			_, err := s.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &c.table, Key: map[string]types.AttributeValue{"p": it["p"], "s": it["s"]}})
			require.NoError(t, err)
			return
		}
		change(it)
		_, err := s.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &c.table, Item: it})
		require.NoError(t, err)
		return
	}
	t.Fatalf("no item has %q in its name", part)
}

func TestAnItemOfANewerVersionIsNotTouched(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.start("r")
	c.damage(t, "head", func(it map[string]types.AttributeValue) { it["z"] = num("2") })
	_, err := l.tail("r")
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "a newer version of this package wrote it: format 2")
	_, err = l.put("r", state, output(10_000))
	require.ErrorContains(t, err, "a newer version")
	require.NotZero(t, l.Stats().Foreign)
}

func TestItemsThatMakeNoSenseAreNamedAndCounted(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, change := range map[string]func(it map[string]types.AttributeValue){
		"no version":    func(it map[string]types.AttributeValue) { delete(it, "z") },
		"no state":      func(it map[string]types.AttributeValue) { delete(it, "st") },
		"another state": func(it map[string]types.AttributeValue) { it["st"] = &types.AttributeValueMemberB{Value: []byte("?")} },
		"no events":     func(it map[string]types.AttributeValue) { delete(it, "ev") },
		"other events":  func(it map[string]types.AttributeValue) { it["ev"] = &types.AttributeValueMemberL{} },
		"no list":       func(it map[string]types.AttributeValue) { it["ev"] = num("1") },
		"a wrong count": func(it map[string]types.AttributeValue) { it["n"] = num("7") },
		"an expiry":     func(it map[string]types.AttributeValue) { it["x"] = num("99999999999") },
		"no number":     func(it map[string]types.AttributeValue) { it["v"] = num("1.5") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, c := s.log(t)
			state := l.start("good")
			l.start("bad")
			c.damage(t, "bad head", change)
			for _, try := range []func() error{
				func() error { _, err := l.tail("bad"); return err },
				func() error { _, err := l.Read(t.Context(), key("bad"), 0, 1); return err },
				func() error { _, err := l.put("bad", initial(), accepted()); return err },
			} {
				err := try()
				require.ErrorIs(t, err, progress.ErrUnavailable)
				require.ErrorContains(t, err, `item "11:tenant/user/bad", "head" of table streamer-test-`)
			}
			require.EqualValues(t, 3, l.Stats().Foreign)

			var ids []string
			var last error
			for p, err := range l.Open(t.Context(), 0) {
				if last = err; err == nil {
					ids = append(ids, p.Key.ID)
				}
			}
			require.Equal(t, []string{"good"}, ids, "what makes sense is yielded")
			require.ErrorIs(t, last, progress.ErrUnavailable)
			l.must("good", state, output(10))
		})
	}
}

func TestLostEventsAreNeverSkippedInSilence(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.long("r")
	whole := l.all("r")
	c.damage(t, "/e/", nil) // one of several, whichever

	var seen []uint64
	missing := 0
	for after := uint64(0); after < state.Last; {
		page, err := l.Read(t.Context(), key("r"), after, 1000)
		require.NoError(t, err)
		require.NotEmpty(t, page.Events)
		for i, e := range page.Events {
			require.Equal(t, page.Events[0].Seq+uint64(i), e.Seq, "a page has no hole")
			seen = append(seen, e.Seq)
		}
		if _, gap := page.Gap("", after); gap {
			missing += int(page.Oldest - after - 1)
			require.Equal(t, page.Oldest, page.Events[0].Seq)
		} else {
			require.Equal(t, after+1, page.Events[0].Seq)
		}
		after = seen[len(seen)-1]
	}
	require.Positive(t, missing)
	require.Equal(t, len(whole), len(seen)+missing)
}

func TestALostRecordMakesTheLogUnavailable(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	state := l.must("r", l.start("r"), output(10_000))
	c.damage(t, "/r/", nil)
	_, err := l.Read(t.Context(), key("r"), 0, 10)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "changes all the time")
	tail, err := l.tail("r")
	require.NoError(t, err)
	require.Equal(t, state.Last, tail.Last)
}

func TestADamagedPartIsNamed(t *testing.T) {
	t.Parallel()
	l, c := newLog(t)
	l.long("r")
	for _, part := range []string{"/e/", "/r/", "/c/"} {
		c.damage(t, part, func(it map[string]types.AttributeValue) { it["d"] = &types.AttributeValueMemberS{Value: "text"} })
	}
	_, err := l.Read(t.Context(), key("r"), 0, 1000)
	require.ErrorIs(t, err, progress.ErrUnavailable)
	require.ErrorContains(t, err, "makes no sense")
	var conflict *progress.ConflictError
	_, err = l.put("r", initial(), accepted())
	require.False(t, errors.As(err, &conflict), "a conflict tells the state, which can't be read")
	require.ErrorIs(t, err, progress.ErrUnavailable)
}
