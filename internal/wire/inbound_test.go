package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2/internal/wire"
)

func TestRefusalsSayWhyAndNameTheRequest(t *testing.T) {
	t.Parallel()
	const id, ref = "r1", "7"
	for name, c := range map[string]struct {
		message string
		want    string
		id, ref string
	}{
		"empty":                  {"", "invalid message at byte 0: it ends where a value is expected", "", ""},
		"white space":            {" \n", "it ends where a value is expected", "", ""},
		"not JSON":               {"hello", `invalid message at byte 0: 'h' where a value is expected`, "", ""},
		"byte order mark":        {"\uFEFF{}", "where a value is expected", "", ""},
		"comment":                {`{"type":"ping" /**/}`, "'/' where a comma or '}' is expected", "", ""},
		"single quotes":          {`{'type':'ping'}`, "where a string is expected", "", ""},
		"name without quotes":    {`{type:"ping"}`, "where a string is expected", "", ""},
		"no colon":               {`{"type","ping"}`, "where a colon is expected", "", ""},
		"trailing comma":         {`{"type":"ping",}`, "'}' where a string is expected", "", ""},
		"comma first":            {`{,"type":"ping"}`, "',' where a string is expected", "", ""},
		"comma twice in a list":  {`{"id":"r1","ref":"7","payload":[1,,2]}`, "where a value is expected", id, ref},
		"cut short":              {`{"id":"r1","ref":"7","action":"ec`, "it ends within a string", id, ref},
		"cut in an escape":       {`{"id":"r1","ref":"7","action":"\`, "it ends within a string", id, ref},
		"not closed":             {`{"id":"r1","ref":"7"`, "it ends where a comma or '}' is expected", id, ref},
		"closed by another kind": {`{"id":"r1","ref":"7","payload":[}}`, "'}' where a value is expected", id, ref},
		"another object after":   {`{"id":"r1","ref":"7","action":"a"}{"type":"ping"}`, "data after the message", id, ref},
		"a word after":           {`{"id":"r1","ref":"7","action":"a"} x`, "data after the message", id, ref},
		"array":                  {`[{"type":"ping"}]`, "a message must be a JSON object", "", ""},
		"string":                 {`"ping"`, "a message must be a JSON object", "", ""},
		"null":                   {`null`, "a message must be a JSON object", "", ""},
		"wrong literal":          {`{"id":"r1","ref":"7","payload":nul}`, "where a value is expected", id, ref},
		"leading zero":           {`{"id":"r1","ref":"7","payload":01}`, "'1' where a comma or '}' is expected", id, ref},
		"bare minus":             {`{"id":"r1","ref":"7","payload":-}`, "where a digit is expected", id, ref},
		"no fraction":            {`{"id":"r1","ref":"7","payload":1.}`, "where a digit is expected", id, ref},
		"no exponent":            {`{"id":"r1","ref":"7","payload":1e+}`, "where a digit is expected", id, ref},
		"infinity":               {`{"id":"r1","ref":"7","payload":Infinity}`, "where a value is expected", id, ref},
		"raw line break":         {"{\"id\":\"r1\",\"ref\":\"7\",\"payload\":\"a\nb\"}", "control character in a string", id, ref},
		"unknown escape":         {`{"id":"r1","ref":"7","payload":"\x41"}`, "unknown escape", id, ref},
		"short \\u":              {`{"id":"r1","ref":"7","payload":"\u12g4"}`, "without four hexadecimal digits", id, ref},
		"invalid UTF-8":          {"{\"id\":\"r1\",\"ref\":\"7\",\"action\":\"a\xff\"}", "invalid UTF-8", id, ref},
		"... in the payload":     {"{\"id\":\"r1\",\"ref\":\"7\",\"payload\":{\"\xc0\xaf\":1}}", "invalid UTF-8", id, ref},
		"... a raw surrogate":    {"{\"id\":\"r1\",\"ref\":\"7\",\"payload\":\"\xed\xa0\x80\"}", "invalid UTF-8", id, ref},
		"... outside of strings": {"{\"id\":\"r1\",\"ref\":\"7\",\xff\"payload\":1}", "where a string is expected", id, ref},
		"lone high surrogate":    {`{"id":"r1","ref":"7","action":"\ud83d"}`, "lone surrogate", id, ref},
		"lone low surrogate":     {`{"id":"r1","ref":"7","payload":["\ude00"]}`, "lone surrogate", id, ref},
		"reversed surrogates":    {`{"id":"r1","ref":"7","payload":"\ude00\ud83d"}`, "lone surrogate", id, ref},
		"high and a letter":      {`{"id":"r1","ref":"7","payload":"\ud83d\u0041"}`, "lone surrogate", id, ref},

		"name twice":                   {`{"ref":"7","id":"r1","action":"a","action":"b"}`, `"action" occurs twice`, id, ref},
		"unknown name twice":           {`{"ref":"7","id":"r1","x":1,"x":1}`, `"x" occurs twice`, id, ref},
		"name twice, escaped":          {`{"ref":"7","id":"r1","action":"a","\u0061ction":"b"}`, `"action" occurs twice`, id, ref},
		"id twice":                     {`{"ref":"7","id":"r1","id":"r2"}`, `"id" occurs twice`, "", ref},
		"id in two cases":              {`{"ref":"7","id":"r1","ID":"r1"}`, `"id" and "ID" differ only in case`, "", ref},
		"name in two cases":            {`{"ref":"7","id":"r1","action":"a","Action":"b"}`, `"action" and "Action" differ only in case`, id, ref},
		"name in another case":         {`{"ref":"7","id":"r1","ACTION":"a"}`, `"ACTION" must be written "action"`, id, ref},
		"... by a letter like it":      {`{"ref":"7","id":"r1","to\u212Aen":"a"}`, `must be written "token"`, id, ref},
		"metadata name twice":          {`{"ref":"7","id":"r1","metadata":{"a":"1","a":"2"}}`, `"a" occurs twice`, id, ref},
		"metadata name in two cases":   {`{"ref":"7","id":"r1","metadata":{"user_id":"1","User_ID":"2"}}`, "differ only in case", id, ref},
		"resume name twice":            {`{"type":"hello","ref":"7","resume":[{"id":"r1","id":"r1"}]}`, `"id" occurs twice`, "", ref},
		"resume name in another case":  {`{"type":"hello","ref":"7","resume":[{"id":"r1","After":1}]}`, `"After" must be written "after"`, "", ref},
		"empty name, then no JSON":     {`{"ref":"7","id":"r1","":1,x}`, "where a string is expected", id, ref},
		"long name":                    {`{"ref":"7","id":"r1","` + strings.Repeat("x", 129) + `":1}`, "a name of more than 128 bytes", id, ref},
		"more members than we look at": {`{"ref":"7","id":"r1"` + members(100_000) + `}`, "more than 64 members", id, ref},

		"type no string":        {`{"type":1,"id":"r1","ref":"7"}`, `"type" must be a string`, id, ref},
		"type null":             {`{"type":null,"id":"r1","ref":"7","action":"a"}`, `"type" must be a string`, id, ref},
		"no type and no action": {`{"id":"r1","ref":"7","payload":1}`, `"type" or "action" is missing`, id, ref},
		"action missing":        {`{"type":"request","id":"r1","ref":"7"}`, `"action" is missing or empty`, id, ref},
		"action empty":          {`{"type":"request","id":"r1","ref":"7","action":""}`, `"action" is missing or empty`, id, ref},
		"action no string":      {`{"action":{"type":"request"},"id":"r1","ref":"7"}`, `"action" must be a string`, id, ref},
		"action long":           {`{"action":"` + strings.Repeat("a", 129) + `","id":"r1","ref":"7"}`, `"action" must be at most 128 bytes long`, id, ref},
		"id empty":              {`{"action":"a","id":"","ref":"7"}`, `"id" must be 1 to 128 of`, "", ref},
		"id long":               {`{"action":"a","id":"` + strings.Repeat("a", 129) + `","ref":"7"}`, `"id" must be 1 to 128 of`, "", ref},
		"id a number":           {`{"action":"a","id":5,"ref":"7"}`, `"id" must be a string`, "", ref},
		"id null":               {`{"action":"a","id":null,"ref":"7"}`, `"id" must be a string`, "", ref},
		"id with a wildcard":    {`{"action":"a","id":"r.*","ref":"7"}`, `"id" must be 1 to 128 of`, "", ref},
		"two ids":               {`{"action":"a","request_id":"r2","id":"r1","ref":"7"}`, `"request_id" must be the same as "id"`, "", ref},
		"attach without id":     {`{"type":"attach","ref":"7"}`, `"id" is missing`, "", ref},
		"detach without id":     {`{"type":"detach","ref":"7"}`, `"id" is missing`, "", ref},
		"cancel without id":     {`{"type":"cancel","ref":"7"}`, `"id" is missing`, "", ref},
		"auth without token":    {`{"type":"auth","ref":"7"}`, `"token" is missing`, "", ref},
		"ref long":              {`{"type":"ping","ref":"` + strings.Repeat("7", 65) + `"}`, `"ref" must be at most 64 bytes long`, "", ""},
		"ref no string":         {`{"type":"ping","ref":7}`, `"ref" must be a string`, "", ""},
		"after negative":        {`{"type":"attach","id":"r1","ref":"7","after":-1}`, `"after" must be an integer from 0 to`, id, ref},
		"after minus zero":      {`{"type":"attach","id":"r1","ref":"7","after":-0}`, `"after" must be an integer from 0 to`, id, ref},
		"after fractional":      {`{"type":"attach","id":"r1","ref":"7","after":1.5}`, `"after" must be an integer from 0 to`, id, ref},
		"after in scientific":   {`{"type":"attach","id":"r1","ref":"7","after":1e3}`, `"after" must be an integer from 0 to`, id, ref},
		"after huge":            {`{"type":"attach","id":"r1","ref":"7","after":9007199254740992}`, `"after" must be an integer from 0 to`, id, ref},
		"after over 64 bits":    {`{"type":"attach","id":"r1","ref":"7","after":18446744073709551617}`, `"after" must be an integer from 0 to`, id, ref},
		"after a string":        {`{"type":"attach","id":"r1","ref":"7","after":"41"}`, `"after" must be an integer`, id, ref},
		"after null":            {`{"type":"attach","id":"r1","ref":"7","after":null}`, `"after" must be an integer`, id, ref},
		"after no number":       {`{"type":"attach","id":"r1","ref":"7","after":-x}`, "where a digit is expected", id, ref},
		"epoch a number":        {`{"type":"attach","id":"r1","ref":"7","epoch":1}`, `"epoch" must be a string`, id, ref},
		"timeout negative":      {`{"action":"a","id":"r1","ref":"7","timeout_ms":-1}`, `"timeout_ms" must be an integer from 0 to`, id, ref},
		"timeout over 292 y":    {`{"action":"a","id":"r1","ref":"7","timeout_ms":9223372036855}`, `"timeout_ms" must be an integer from 0 to`, id, ref},
		"metadata an array":     {`{"action":"a","id":"r1","ref":"7","metadata":["a"]}`, `"metadata" must be an object of strings`, id, ref},
		"metadata null":         {`{"action":"a","id":"r1","ref":"7","metadata":null}`, `"metadata" must be an object of strings`, id, ref},
		"metadata of a number":  {`{"action":"a","id":"r1","ref":"7","metadata":{"a":1}}`, `"metadata" must be an object of strings`, id, ref},
		"metadata of an object": {`{"action":"a","id":"r1","ref":"7","metadata":{"a":{"b":"c"}}}`, `"metadata" must be an object of strings`, id, ref},
		"reason no string":      {`{"type":"cancel","id":"r1","ref":"7","reason":["a"]}`, `"reason" must be a string`, id, ref},
		"v a string":            {`{"type":"hello","v":"1","ref":"7"}`, `"v" must be an integer`, "", ref},
		"caps a string":         {`{"type":"hello","v":1,"caps":"batch","ref":"7"}`, `"caps" must be an array of strings`, "", ref},
		"caps of numbers":       {`{"type":"hello","v":1,"caps":[1],"ref":"7"}`, `"caps" must be a string`, "", ref},
		"resume an object":      {`{"type":"hello","v":1,"resume":{},"ref":"7"}`, `"resume" must be an array of objects`, "", ref},
		"resume of strings":     {`{"type":"hello","v":1,"resume":["r1"],"ref":"7"}`, `"resume" must be an array of objects`, "", ref},
		"resume without id":     {`{"type":"hello","v":1,"resume":[{"after":1}],"ref":"7"}`, `"id" must be in every entry of resume`, "", ref},
		"token no string":       {`{"type":"auth","token":true,"ref":"7"}`, `"token" must be a string`, "", ref},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.DecodeInbound([]byte(c.message))
			require.Nil(t, m)
			var e *wire.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Message, c.want)
			require.Equal(t, c.id, e.ID, "ID")
			require.Equal(t, c.ref, e.Ref, "Ref")
			require.Less(t, len(e.Message), 300)
		})
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":0`, i)
	}
	return b.String()
}

func TestAcceptedMessages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		message string
		want    wire.Inbound
	}{
		"request without type":   {`{"action":"echo"}`, wire.Inbound{Type: "request", Action: "echo"}},
		"request with type \"\"": {`{"type":"","action":"echo"}`, wire.Inbound{Type: "request", Action: "echo"}},
		"older name of id":       {`{"request_id":"r1","action":"echo"}`, wire.Inbound{Type: "request", ID: "r1", Action: "echo"}},
		"both names, equal":      {`{"request_id":"r1","id":"r1","action":"echo"}`, wire.Inbound{Type: "request", ID: "r1", Action: "echo"}},
		"white space":            {" {\t\"type\" :\r\n\"ping\" } \n", wire.Inbound{Type: "ping"}},
		"escaped name":           {`{"\u0074ype":"ping"}`, wire.Inbound{Type: "ping"}},
		"unknown fields": {`{"type":"ping","x":{"type":"auth","type":[]},"y":[1,{}],"z":null}`,
			wire.Inbound{Type: "ping"}},
		"escapes and surrogates": {`{"type":"cancel","id":"r1","reason":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀"}`,
			wire.Inbound{Type: "cancel", ID: "r1", Reason: "\"\\/\b\f\n\r\té😀é😀"}},
		"unknown type": {`{"type":"subscribe","id":"r1","ref":"7","after":"yesterday","metadata":5}`,
			wire.Inbound{Type: "subscribe", ID: "r1", Ref: "7"}},
		"largest numbers": {`{"type":"attach","id":"r1","after":9007199254740991,"timeout_ms":9223372036854}`,
			wire.Inbound{Type: "attach", ID: "r1", After: 1<<53 - 1, TimeoutMS: 9223372036854}},
		"metadata": {`{"action":"a","metadata":{"a":"1","":"\u0000"}}`,
			wire.Inbound{Type: "request", Action: "a", Metadata: map[string]string{"a": "1", "": "\x00"}}},
		"resume": {`{"type":"hello","v":2,"resume":[{"id":"r1"},{"after":3,"x":1,"epoch":"k","id":"r2"}],"caps":[]}`,
			wire.Inbound{Type: "hello", V: 2, Resume: []wire.Cursor{{ID: "r1"}, {ID: "r2", Epoch: "k", After: 3}}}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.DecodeInbound([]byte(c.message))
			require.NoError(t, err)
			require.Equal(t, &c.want, m)
		})
	}
}

func TestBoundsAreInclusive(t *testing.T) {
	t.Parallel()
	entries := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"%d":"v"`, i))
		}
		return `{"action":"a","metadata":{` + strings.Join(list, ",") + `}}`
	}
	list := func(field, element string) func(n int) string {
		return func(n int) string {
			return `{"type":"hello","v":1,"` + field + `":[` + strings.TrimPrefix(strings.Repeat(","+element, n), ",") + `]}`
		}
	}
	long := func(before, after string) func(n int) string {
		return func(n int) string { return before + strings.Repeat("x", n) + after }
	}
	for name, c := range map[string]struct {
		most    int
		message func(n int) string
	}{
		"bytes of id":         {128, long(`{"action":"a","id":"`, `"}`)},
		"bytes of ref":        {64, long(`{"type":"ping","ref":"`, `"}`)},
		"bytes of action":     {128, long(`{"action":"`, `"}`)},
		"bytes of epoch":      {128, long(`{"type":"attach","id":"a","epoch":"`, `"}`)},
		"bytes of client":     {256, long(`{"type":"hello","client":"`, `"}`)},
		"bytes of a cap":      {64, long(`{"type":"hello","caps":["`, `"]}`)},
		"bytes of metadata":   {8<<10 - 1, long(`{"action":"a","metadata":{"k":"`, `"}}`)},
		"entries of metadata": {32, entries},
		"entries of caps":     {32, list("caps", `"c"`)},
		"entries of resume":   {1024, list("resume", `{"id":"r"}`)},
		"bytes of a name":     {128, long(`{"type":"ping","`, `":1}`)},
		"members":             {64 - 1, func(n int) string { return `{"type":"ping"` + members(n) + `}` }},
		"depth of payload": {64 - 1, func(n int) string {
			return `{"action":"a","payload":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
		}},
		"depth of unknown": {64 - 1, func(n int) string {
			return `{"type":"ping","x":` + strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) + `}`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := wire.DecodeInbound([]byte(c.message(c.most)))
			require.NoError(t, err)
			_, err = wire.DecodeInbound([]byte(c.message(c.most + 1)))
			require.Error(t, err)
		})
	}
}

func TestNestingIsRefusedHoweverDeep(t *testing.T) {
	t.Parallel()
	for _, open := range []string{"[", `{"a":`} {
		for _, depth := range []int{10_000, 1_000_000} {
			_, err := wire.DecodeInbound([]byte(`{"id":"r1","action":"a","payload":` + strings.Repeat(open, depth)))
			require.ErrorContains(t, err, "nested deeper than 64 levels")
			var e *wire.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "r1", e.ID)
		}
	}
}

func TestPayloadIsPassedByteForByte(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{
		`null`, `true`, `""`, `-0`, `1e400`, `12345678901234567890.10`, strings.Repeat("9", 100_000),
		"[ 1 ,\n\t{\"a\" : \"\\u0041\\ud83d\\ude00\"} ]", `{"type":"cancel","type":"x","Type":1}`, `"<&>` + "\u2028" + `"`,
	} {
		data := []byte(`{"action":"echo", "payload":  ` + payload + " \n, \"id\":\"r1\"}")
		m, err := wire.DecodeInbound(data)
		require.NoError(t, err)
		clear(data)
		require.Equal(t, payload, string(m.Payload))
		require.Equal(t, "r1", m.ID, "shares no memory with data")
	}
}

func TestReasonIsCutOnARuneBoundary(t *testing.T) {
	t.Parallel()
	m, err := wire.DecodeInbound([]byte(`{"type":"cancel","id":"r1","reason":"` + strings.Repeat("€", 1000) + `"}`))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("€", 341), m.Reason)
}

func TestClientMessagesStayOnOneLineAndInUTF8(t *testing.T) {
	t.Parallel()
	m := wire.Inbound{Type: "request", Action: "a\xffb\n\u2028\x01\"\\", Payload: []byte("{\n \"a\":\r\n\"\xff\"}"), Metadata: map[string]string{"b\n": "2", "a": "1"}}
	require.Equal(t, `{"type":"request","action":"a�b\n\u2028\u0001\"\\","payload":{  "a":  "�"},"metadata":{"a":"1","b\n":"2"}}`, string(m.Append(nil)))
	m = wire.Inbound{Type: "hello", V: 1, Caps: []string{"batch", "\r\t"}, Client: "\xe2\x80"}
	require.Equal(t, `{"type":"hello","v":1,"caps":["batch","\r\t"],"client":"��"}`, string(m.Append(nil)))
}

func TestFramesAreSplitAtNewlines(t *testing.T) {
	t.Parallel()
	for frame, want := range map[string][]string{
		"":           nil,
		"\n\n":       nil,
		"{}":         {"{}"},
		"{}\n":       {"{}"},
		"\n{}\n\n[]": {"{}", "[]"},
		"{}\r\n 1":   {"{}\r", " 1"},
	} {
		var got []string
		for message := range wire.SplitBatch([]byte(frame)) {
			got = append(got, string(message))
		}
		require.Equal(t, want, got, "%q", frame)
	}
	for range wire.SplitBatch([]byte("1\n2")) {
		break
	}
}

func TestIDsFollowTheGrammar(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "AZaz09._~-", "0198c0de-0000-7000-8000-000000000001", strings.Repeat("a", 128)} {
		require.True(t, wire.ValidID(id), "%q", id)
	}
	for _, id := range []string{"", strings.Repeat("a", 129), "a b", "a/b", "a*", ">", "a\n", "a\x00", "é", "a:b", "a\xff"} {
		require.False(t, wire.ValidID(id), "%q", id)
	}
}

func TestCloseReasonsAreCutOnARuneBoundary(t *testing.T) {
	t.Parallel()
	require.Equal(t, "bye", wire.CloseReason("bye"))
	require.Equal(t, strings.Repeat("a", 123), wire.CloseReason(strings.Repeat("a", 124)))
	require.Equal(t, strings.Repeat("€", 41), wire.CloseReason(strings.Repeat("€", 50)))
	require.Equal(t, "a"+strings.Repeat("€", 40), wire.CloseReason("a"+strings.Repeat("€", 50)))
	require.Equal(t, "a�", wire.CloseReason("a\xff"))
}
