// One element of the quantizer, forward and backward: what the kernels on the card run, and what
// the tests hold against the scalar reference on the CPU. ELEMENT is the qualifier of a function.

struct QuantizerGrid {
    float low;             // least value of the range: 0 or -q_max (uniform)
    float high;            // q_max
    float step;            // uniform: d, a power of two; power of two: q_min
    float inverse;         // 1 / d, exact
    float zero_threshold;  // power of two, unsigned: below it a value becomes 0
    int is_signed;
    int published;         // the published code's rules on the bounds
    int power_of_two;
};

// An element's gradient, and its shares of the sums behind the parameters' gradients.
struct QuantizerShare {
    float gradient;
    float inner;
    float outer;
    float clipped;
    float zero;
};

// Half away from zero, exact also just below one half.
ELEMENT float round_half_away(float v) {
    float magnitude = fabsf(v);
    float whole = truncf(magnitude);
    return copysignf(whole + (magnitude - whole >= 0.5f ? 1.0f : 0.0f), v);
}

// Not fminf and fmaxf, which would make a level of what is not a number.
ELEMENT float clamped(float v, float low, float high) {
    return v < low ? low : v > high ? high : v;
}

// The nearest power of two in the logarithm, decided on the mantissa.
ELEMENT float nearest_octave(float v) {
    unsigned int bits;
    memcpy(&bits, &v, sizeof bits);
    const unsigned int sqrt_two = 0x3504f3u;
    unsigned int exponent = (bits >> 23) + ((bits & 0x007fffffu) > sqrt_two ? 1u : 0u);
    bits = exponent << 23;
    memcpy(&v, &bits, sizeof bits);
    return v;
}

ELEMENT int becomes_zero(const QuantizerGrid &q, float x, float magnitude) {
    return !q.is_signed && (x < 0.0f || magnitude < q.zero_threshold);
}

ELEMENT float quantize(const QuantizerGrid &q, float x) {
    if (x != x) {
        return x;
    }
    if (q.power_of_two) {
        float magnitude = fabsf(x);
        if (becomes_zero(q, x, magnitude)) {
            return 0.0f;
        }
        float level = nearest_octave(clamped(magnitude, q.step, q.high));
        return x < 0.0f ? -level : level;
    }
    return round_half_away(clamped(x, q.low, q.high) * q.inverse) * q.step;
}

ELEMENT QuantizerShare quantizer_share(const QuantizerGrid &q, float x, float g) {
    QuantizerShare share = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float magnitude = fabsf(x);
    if (q.power_of_two) {
        if (becomes_zero(q, x, magnitude)) {
            share.zero = 1.0f;
            return share;
        }
        float signed_g = x < 0.0f ? -g : g;
        share.clipped = magnitude > q.high ? 1.0f : 0.0f;
        if (q.published ? magnitude >= q.high : magnitude > q.high) {
            share.outer = signed_g;
        } else if (q.published ? magnitude < q.step : magnitude <= q.step) {
            share.inner = signed_g;
        } else {
            share.gradient = g * (nearest_octave(magnitude) / magnitude);
        }
        return share;
    }
    int above = q.published ? x >= q.high : x > q.high;
    int below = q.published ? x <= q.low : x < q.low;
    float scaled = clamped(x, q.low, q.high) * q.inverse;
    float rounded = round_half_away(scaled);
    share.zero = rounded == 0.0f ? 1.0f : 0.0f;
    share.clipped = magnitude > q.high && (q.is_signed || x > 0.0f) ? 1.0f : 0.0f;
    if (!above && !below) {
        share.gradient = g;
    }
    if ((!above && !below) || q.published) {
        share.inner = g * rounded - g * scaled;
    }
    if (above) {
        share.outer = g;
    } else if (below && q.is_signed) {
        share.outer = -g;
    }
    return share;
}
