package dynamolog

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// change is a conditional update of an item, as its expressions are put together. The zero
// value is ready.
type change struct {
	sets, removes, conditions []string
	names                     map[string]string
	values                    item
}

// name returns how an expression speaks of an attribute: many short words are reserved.
func (c *change) name(attr string) string {
	if c.names == nil {
		c.names = make(map[string]string)
	}
	c.names["#"+attr] = attr
	return "#" + attr
}

// value returns how an expression speaks of a value, which it has under a name of its own.
func (c *change) value(name string, v types.AttributeValue) string {
	if c.values == nil {
		c.values = make(item)
	}
	c.values[":"+name] = v
	return ":" + name
}

// set replaces an attribute.
func (c *change) set(attr string, v types.AttributeValue) {
	c.sets = append(c.sets, c.name(attr)+" = "+c.value(attr, v))
}

// add adds to a number that is there.
func (c *change) add(attr string, v types.AttributeValue) {
	n := c.name(attr)
	c.sets = append(c.sets, n+" = "+n+" + "+c.value(attr, v))
}

// append appends to a list that is there.
func (c *change) append(attr string, v types.AttributeValue) {
	n := c.name(attr)
	c.sets = append(c.sets, n+" = list_append("+n+", "+c.value(attr, v)+")")
}

func (c *change) remove(attrs ...string) {
	for _, attr := range attrs {
		c.removes = append(c.removes, c.name(attr))
	}
}

// want makes a condition of a comparison.
func (c *change) want(attr, operator string, v types.AttributeValue) {
	c.conditions = append(c.conditions, c.name(attr)+" "+operator+" "+c.value("if_"+attr, v))
}

// absent makes a condition of an attribute's absence.
func (c *change) absent(attr string) {
	c.conditions = append(c.conditions, "attribute_not_exists("+c.name(attr)+")")
}

func (c *change) expression() string {
	s := "SET " + strings.Join(c.sets, ", ")
	if len(c.removes) > 0 {
		s += " REMOVE " + strings.Join(c.removes, ", ")
	}
	return s
}

func (c *change) condition() string { return strings.Join(c.conditions, " AND ") }
