/**
 * Text that may be shown anywhere: a model may write any character, and an escape sequence must not be obeyed by a
 * terminal, nor a control character make a page invalid.
 *
 * @returns  the text with line ends as `\n`, tabs kept, and every other control character as the sign for "no character"
 */
export function printable(text: string): string {
  const lines = text.replaceAll("\r\n", "\n");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose
  return lines.replaceAll(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "\ufffd");
}
