/*
 * What a capOS application is linked with in place of a C library.
 *
 * Memory functions: the compiler emits calls to them.
 * Words of eight bytes move through memcpy of a constant size, which the
 * compiler turns into one unaligned load or store. Built freestanding and
 * without loop idiom recognition, so that no loop becomes a call to itself.
 */
typedef unsigned long word;
typedef unsigned char byte;
typedef __SIZE_TYPE__ size;

#define WORD_BYTES sizeof(word)

static inline word load(const byte *at)
{
	word value;
	__builtin_memcpy(&value, at, WORD_BYTES);
	return value;
}

static inline void store(byte *at, word value)
{
	__builtin_memcpy(at, &value, WORD_BYTES);
}

static void copy_up(byte *to, const byte *from, size count)
{
	for (; count >= WORD_BYTES; count -= WORD_BYTES) {
		store(to, load(from));
		to += WORD_BYTES;
		from += WORD_BYTES;
	}
	while (count--)
		*to++ = *from++;
}

static void copy_down(byte *to, const byte *from, size count)
{
	for (; count >= WORD_BYTES; count -= WORD_BYTES)
		store(to + count - WORD_BYTES, load(from + count - WORD_BYTES));
	while (count--)
		to[count] = from[count];
}

void *memcpy(void *restrict to, const void *restrict from, size count)
{
	copy_up(to, from, count);
	return to;
}

/* Each word is read before the word it lands on is written, so copying away
 * from the overlap is enough. */
void *memmove(void *to, const void *from, size count)
{
	if ((word)to - (word)from >= count)
		copy_up(to, from, count);
	else
		copy_down(to, from, count);
	return to;
}

void *memset(void *to, int value, size count)
{
	byte *at = to;
	word pattern = (byte)value * 0x0101010101010101ul;

	for (; count >= WORD_BYTES; count -= WORD_BYTES) {
		store(at, pattern);
		at += WORD_BYTES;
	}
	while (count--)
		*at++ = (byte)value;
	return to;
}

int memcmp(const void *left, const void *right, size count)
{
	const byte *a = left, *b = right;

	for (; count >= WORD_BYTES && load(a) == load(b); count -= WORD_BYTES) {
		a += WORD_BYTES;
		b += WORD_BYTES;
	}
	for (; count; count--, a++, b++)
		if (*a != *b)
			return *a - *b;
	return 0;
}

int bcmp(const void *left, const void *right, size count)
{
	return memcmp(left, right, count);
}

size strlen(const char *text)
{
	size length = 0;

	while (text[length])
		length++;
	return length;
}

/*
 * Unwinding: the prebuilt library crates refer to it. Applications abort on
 * panic, so it is never reached; a runtime that brings its own wins.
 */
__attribute__((weak, noreturn)) void _Unwind_Resume(void *exception)
{
	(void)exception;
	__builtin_trap();
}

__attribute__((weak, noreturn)) void rust_eh_personality(void)
{
	__builtin_trap();
}
