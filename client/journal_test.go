package client

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func outputs(j *journal, from, to uint64) {
	for seq := from; seq <= to; seq++ {
		e := &Event{Kind: progress.Output, Seq: seq, Data: json.RawMessage(fmt.Sprint(seq))}
		if seq == j.last+1 {
			j.add(e)
		} else {
			j.refill(e)
		}
	}
}

// drain reads what r can have, as numbers, with gaps as negative numbers of the event before.
func drain(j *journal, r *reader) (seqs []int) {
	for e := j.take(r); e != nil; e = j.take(r) {
		if e.Gap != nil {
			seqs = append(seqs, -int(e.Gap.After))
			continue
		}
		seqs = append(seqs, int(e.Seq))
	}
	return seqs
}

func TestAReaderThatLagsIsToldWhatCanNotBeReadAgain(t *testing.T) {
	t.Parallel()
	b := &budget{limit: 1 << 20}
	j := newJournal(4*300, b, 0)
	j.waiters = 1
	r := &reader{pos: j.place(0)}
	j.enter(r)
	outputs(&j, 1, 20)
	after, yes := j.behind(j.limit)
	require.True(t, yes)
	require.Zero(t, after)
	outputs(&j, 1, 2) // read again, but then the log is cut
	after, _ = j.behind(j.limit)
	require.EqualValues(t, 2, after)
	j.lose(gap("e", "expired", 10, 1))
	_, yes = j.behind(j.limit)
	require.False(t, yes)
	require.Equal(t, []int{1, 2, -2}, drain(&j, r))
	after, yes = j.behind(j.limit)
	require.True(t, yes)
	require.EqualValues(t, 9, after)
	for last := 9; last < 20; {
		outputs(&j, uint64(last)+1, 20)
		for _, seq := range drain(&j, r) {
			require.Equal(t, last+1, seq)
			last = seq
		}
	}
	require.Zero(t, r.own)
	j.leave(r)
	j.part()
	require.Zero(t, b.used)
}

func TestJournalsShareOneBudget(t *testing.T) {
	t.Parallel()
	b := &budget{limit: 5000}
	var all [10]journal
	for i := range all {
		all[i] = newJournal(4000, b, 0)
		outputs(&all[i], 1, 50)
	}
	// Each may hold one event that is over it.
	require.LessOrEqual(t, b.used, 5000+len(all)*300)
	for i := range all {
		require.GreaterOrEqual(t, len(all[i].events), 1)
		all[i].part()
	}
	require.Zero(t, b.used)
}
