package dynamolog

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/progress"
)

func TestFindingsAreBoundedAndKeepTheNewest(t *testing.T) {
	t.Parallel()
	var f findings
	h := &head{state: progress.State{Last: 1}}
	begun := time.Now()
	const all = 10 * maxFound
	for n := range all {
		f.keep(fmt.Sprint(n), h, sight{begun: time.Now(), own: true})
	}
	require.LessOrEqual(t, len(f.young)+len(f.old), 2*maxFound)
	for n := all - maxFound; n < all; n++ {
		require.NotNil(t, f.recall(fmt.Sprint(n), 0))
		require.Nil(t, f.recall(fmt.Sprint(n), 1), "a reader that has seen all asks the store")
	}
	require.Nil(t, f.recall("0", 0))

	// What came meanwhile may be forgotten, so it can't be told whether this is older.
	f.keep("late", h, sight{begun: begun, own: true})
	require.Nil(t, f.recall("late", 0))
	f.keep("late", h, sight{begun: begun, consistent: true})
	require.Nil(t, f.take("late").head)
}

func TestWhatIsFoundAgainStaysWhenOthersAreForgotten(t *testing.T) {
	t.Parallel()
	var f findings
	h := &head{state: progress.State{Last: 1}}
	for n := range 4 * maxFound {
		f.keep("often", h, sight{begun: time.Now(), own: true})
		f.keep(fmt.Sprint(n), h, sight{begun: time.Now(), own: true})
	}
	require.NotNil(t, f.recall("often", 0))
	require.NotNil(t, f.take("often").head)
	require.Nil(t, f.take("often").head)
}
