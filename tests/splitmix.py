"""The finisher of SplitMix64, by which the test guests choose what to write where."""

WORD = (1 << 64) - 1


def mix(z):
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & WORD
    z = (z ^ z >> 27) * 0x94d049bb133111eb & WORD
    return z ^ z >> 31
