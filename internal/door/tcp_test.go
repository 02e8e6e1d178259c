package door

import "testing"

func TestAMessageGoesFromAPublisherToAConsumer(t *testing.T) {
	d := serveTCP(t, Config{})
	c := d.dial()
	c.send("SUB t c\n", "RDY 2\n")
	c.want("OK")
	p := d.dial()
	p.send(pub("t", "one"), mpub("t", "two", "three"))
	p.want("OK", "OK")
	one, two := c.message(), c.message()
	if one.body != "one" || two.body != "two" {
		t.Fatalf("got %q and %q", one.body, two.body)
	}
	c.wantNothing()
	c.send("FIN ", one.id, "\n", "FIN ", two.id, "\n")
	c.want("1:three")
}
