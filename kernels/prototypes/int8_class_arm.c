// A prototype: the sums of the int8 class with ARM's sdot and smmla, held to the bits of a scalar loop. What the class is: docs/numerics.md.
// Nothing is built of it. By hand, on Debian with gcc-aarch64-linux-gnu and qemu-user-static:
//
//   aarch64-linux-gnu-gcc -O2 -static -ffp-contract=off -march=armv8.2-a+dotprod+i8mm int8_class_arm.c -o int8_class && qemu-aarch64-static -cpu max int8_class

#include <arm_neon.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 4096, GROUP = 32, GROUPS = COLUMNS / GROUP, ROUNDS = 2000 };

// One row of activations: bytes, and a scale a group.
typedef struct {
    int8_t q[COLUMNS];
    float d[GROUPS];
} Activations;

// One row of weights: what codes stand for, a scale and a minimum a group, and integer factors of both for each half of it.
typedef struct {
    int8_t c[COLUMNS];
    float w[GROUPS], v[GROUPS];
    int8_t f[GROUPS][2], g[GROUPS][2];
} Weights;

static float grown(float sum, const Weights *w, const Activations *x, int group, int32_t s, int32_t m) {
    return sum + x->d[group] * (w->w[group] * (float)s + w->v[group] * (float)m);
}

static float scalar(const Weights *w, const Activations *x) {
    float sum = 0;
    for (int group = 0; group < GROUPS; group++) {
        int32_t s = 0, m = 0;
        for (int i = 0; i < GROUP; i++) {
            int at = group * GROUP + i;
            s += w->f[group][i / 16] * w->c[at] * x->q[at];
            m += w->g[group][i / 16] * x->q[at];
        }
        sum = grown(sum, w, x, group, s, m);
    }
    return sum;
}

static float with_sdot(const Weights *w, const Activations *x) {
    float sum = 0;
    const int8x16_t ones = vdupq_n_s8(1);
    for (int group = 0; group < GROUPS; group++) {
        int32_t s = 0, m = 0;
        for (int half = 0; half < 2; half++) {
            int at = group * GROUP + half * 16;
            int8x16_t q = vld1q_s8(x->q + at);
            s += w->f[group][half] * vaddvq_s32(vdotq_s32(vdupq_n_s32(0), vld1q_s8(w->c + at), q));
            m += w->g[group][half] * vaddvq_s32(vdotq_s32(vdupq_n_s32(0), ones, q));
        }
        sum = grown(sum, w, x, group, s, m);
    }
    return sum;
}

// Two rows of weights with two of activations at once: out[row of weights][row of activations].
static void with_smmla(const Weights *w[2], const Activations *x[2], float out[2][2]) {
    const int8x16_t ones = vdupq_n_s8(1);
    memset(out, 0, 4 * sizeof(float));
    for (int group = 0; group < GROUPS; group++) {
        int32_t s[2][2] = {{0}}, m[2][2] = {{0}};
        for (int half = 0; half < 2; half++) {
            int32x4_t dots = vdupq_n_s32(0), sums = vdupq_n_s32(0);
            for (int at = group * GROUP + half * 16, end = at + 16; at < end; at += 8) {
                int8x16_t codes = vcombine_s8(vld1_s8(w[0]->c + at), vld1_s8(w[1]->c + at));
                int8x16_t bytes = vcombine_s8(vld1_s8(x[0]->q + at), vld1_s8(x[1]->q + at));
                dots = vmmlaq_s32(dots, codes, bytes);
                sums = vmmlaq_s32(sums, ones, bytes);
            }
            int32_t dot[4], total[4];
            vst1q_s32(dot, dots);
            vst1q_s32(total, sums);
            for (int row = 0; row < 2; row++) {
                for (int token = 0; token < 2; token++) {
                    s[row][token] += w[row]->f[group][half] * dot[row * 2 + token];
                    m[row][token] += w[row]->g[group][half] * total[row * 2 + token];
                }
            }
        }
        for (int row = 0; row < 2; row++) {
            for (int token = 0; token < 2; token++) {
                out[row][token] = grown(out[row][token], w[row], x[token], group, s[row][token], m[row][token]);
            }
        }
    }
}

static int between(int low, int high) {
    return low + rand() % (high - low + 1);
}

static float scale(void) {
    return ((float)between(1, 65504)) / 65504.0f * (between(0, 1) ? 1.0f : 1.0f / 1024.0f);
}

int main(void) {
    static Weights weights[2];
    static Activations activations[2];
    // What types have: signed codes; codes with a minimum; factors of halves; factors of both. All at their widest.
    const int codes[4][2] = {{-128, 127}, {0, 31}, {-32, 31}, {0, 31}};
    const int factors[4][2] = {{1, 1}, {1, 1}, {-128, 127}, {0, 63}};
    const int has_minimum[4] = {0, 1, 0, 1};
    long n_compared = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int kind = round % 4;
        for (int row = 0; row < 2; row++) {
            for (int i = 0; i < COLUMNS; i++) {
                weights[row].c[i] = (int8_t)between(codes[kind][0], codes[kind][1]);
                activations[row].q[i] = (int8_t)between(-127, 127);
            }
            for (int group = 0; group < GROUPS; group++) {
                weights[row].w[group] = scale();
                weights[row].v[group] = has_minimum[kind] ? -scale() : 0;
                activations[row].d[group] = scale();
                for (int half = 0; half < 2; half++) {
                    weights[row].f[group][half] = (int8_t)between(factors[kind][0], factors[kind][1]);
                    weights[row].g[group][half] = (int8_t)(has_minimum[kind] ? between(1, 63) : 0);
                }
            }
        }
        const Weights *w[2] = {weights, weights + 1};
        const Activations *x[2] = {activations, activations + 1};
        float products[2][2];
        with_smmla(w, x, products);
        for (int row = 0; row < 2; row++) {
            for (int token = 0; token < 2; token++) {
                float expected = scalar(w[row], x[token]), dotted = with_sdot(w[row], x[token]);
                if (memcmp(&expected, &dotted, 4) || memcmp(&expected, &products[row][token], 4)) {
                    printf("kind %d: %a by the loop, %a with sdot, %a with smmla\n", kind, expected, dotted, products[row][token]);
                    return 1;
                }
                n_compared++;
            }
        }
    }
    printf("%ld sums of %d columns have the same bits three ways\n", n_compared, COLUMNS);
    return 0;
}
