package dynamolog

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// change is a conditional update of an item, as its expressions are put together. Each attribute
// goes by its own name, which spares the table of names that goes with every call; but for
// attrTTL, the only one that they speak of and DynamoDB reserves. The zero value is ready.
type change struct {
	sets, removes, conditions strings.Builder
	names                     map[string]string
	values                    item
}

// name returns how an expression speaks of an attribute.
func (c *change) name(attr string) string {
	if attr != attrTTL {
		return attr
	}
	c.names = map[string]string{"#" + attr: attr}
	return "#" + attr
}

// value returns how an expression speaks of a value.
func (c *change) value(v types.AttributeValue) string {
	const places = ":a:b:c:d:e:f:g:h:i:j:k:l:m:n:o:p:q:r:s:t:u:v:w:x:y:z" // more than any change has
	if c.values == nil {
		c.values = make(item, 10)
	}
	at := 2 * len(c.values)
	place := places[at : at+2]
	c.values[place] = v
	return place
}

// join adds a term, which its parts make, to a part of an expression.
func join(to *strings.Builder, between string, parts ...string) {
	if to.Len() == 0 {
		to.Grow(128)
	} else {
		to.WriteString(between)
	}
	for _, p := range parts {
		to.WriteString(p)
	}
}

// set replaces an attribute.
func (c *change) set(attr string, v types.AttributeValue) {
	join(&c.sets, ", ", c.name(attr), " = ", c.value(v))
}

// add adds to a number that is there.
func (c *change) add(attr string, v types.AttributeValue) {
	n := c.name(attr)
	join(&c.sets, ", ", n, " = ", n, " + ", c.value(v))
}

// append appends to a list that is there.
func (c *change) append(attr string, v types.AttributeValue) {
	n := c.name(attr)
	join(&c.sets, ", ", n, " = list_append(", n, ", ", c.value(v), ")")
}

func (c *change) remove(attrs ...string) {
	for _, attr := range attrs {
		join(&c.removes, ", ", c.name(attr))
	}
}

// want makes a condition of a comparison.
func (c *change) want(attr, operator string, v types.AttributeValue) {
	join(&c.conditions, " AND ", c.name(attr), " ", operator, " ", c.value(v))
}

// absent makes a condition of an attribute's absence.
func (c *change) absent(attr string) {
	join(&c.conditions, " AND ", "attribute_not_exists(", c.name(attr), ")")
}

// is makes a condition of the head's being this one, but for its progress: no other has the same
// record as its newest.
func (c *change) is(h *head) {
	c.want(attrRecord, "=", blob([]byte(h.state.Record)))
}

// begins makes a condition of how a text begins.
func (c *change) begins(attr string, v types.AttributeValue) {
	join(&c.conditions, " AND ", "begins_with(", c.name(attr), ", ", c.value(v), ")")
}

// between makes a condition of where a text is in their order, both ends included.
func (c *change) between(attr string, from, to types.AttributeValue) {
	join(&c.conditions, " AND ", c.name(attr), " BETWEEN ", c.value(from), " AND ", c.value(to))
}

// most makes a condition of a number, which may be absent.
func (c *change) most(attr string, v types.AttributeValue) {
	n := c.name(attr)
	join(&c.conditions, " AND ", "(attribute_not_exists(", n, ") OR ", n, " <= ", c.value(v), ")")
}

func (c *change) expression() string {
	if c.removes.Len() == 0 {
		return "SET " + c.sets.String()
	}
	return "SET " + c.sets.String() + " REMOVE " + c.removes.String()
}

func (c *change) condition() string { return c.conditions.String() }
