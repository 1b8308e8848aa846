const maxText = 33_554_432; // characters of an event

/**
 * Returns what takes the bytes of an event stream, cut anywhere, and calls emit with the data of each
 * event. Names, ids and times to wait are of no use here: a message says itself what it is, and cursors
 * are kept with requests. An event that the end of the stream cuts off is none.
 */
export function eventParser(emit: (data: string) => void): (chunk: Uint8Array) => void {
  const decoder = new TextDecoder(); // which drops a byte order mark
  let rest = ''; // of a line
  let lines: string[] = []; // of data
  let size = 0;
  let cr = false; // was the last character: a line feed after it ends no other line

  return (chunk) => {
    let text = decoder.decode(chunk, { stream: true });
    if (!text) return;
    if (cr && text[0] === '\n') text = text.slice(1);
    cr = text ? text.endsWith('\r') : false;
    const parts = text.split(/\r\n|\r|\n/);
    parts[0] = rest + parts[0];
    rest = parts.pop() ?? '';
    for (const line of parts) {
      const field = /^data(?:: ?(.*))?$/s.exec(line);
      if (field) {
        const value = field[1] ?? '';
        lines.push(value);
        size += value.length;
      } else if (!line && lines.length) {
        emit(lines.join('\n'));
        lines = [];
        size = 0;
      }
    }
    if (rest.length + size > maxText) throw new Error('the server sent an event that is too large');
  };
}
