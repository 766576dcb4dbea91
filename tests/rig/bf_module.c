/* A Redis module with the BF commands that flashsale uses, signatures and replies as RedisBloom
 * documents them, over an exact set. It tells whether our scripts speak the module's language; it
 * is no filter. Written against the module API alone, so that no header is needed. */

#include <stddef.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef int (*Command)(Ctx *, String **, int);

static int (*GetApi)(const char *, void *);
static int (*Init)(Ctx *, const char *, int, int);
static int (*CreateCommand)(Ctx *, const char *, Command, const char *, int, int, int);
static Reply *(*Call)(Ctx *, const char *, const char *, ...);
static long long (*CallReplyInteger)(Reply *);
static int (*ReplyWithLongLong)(Ctx *, long long);
static int (*ReplyWithArray)(Ctx *, long);
static int (*ReplyWithSimpleString)(Ctx *, const char *);
static int (*ReplyWithError)(Ctx *, const char *);
static int (*WrongArity)(Ctx *);

static long long ask(Ctx *ctx, const char *command, String *key) {
    return CallReplyInteger(Call(ctx, command, "s", key));
}

static int reserve(Ctx *ctx, String **argv, int argc) {
    if (argc != 4) return WrongArity(ctx);
    if (ask(ctx, "EXISTS", argv[1])) return ReplyWithError(ctx, "ERR item exists");
    Call(ctx, "SADD", "!sc", argv[1], "there");
    return ReplyWithSimpleString(ctx, "OK");
}

static int add(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    return ReplyWithLongLong(ctx, CallReplyInteger(Call(ctx, "SADD", "!ss", argv[1], argv[2])));
}

static int exists(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    return ReplyWithLongLong(ctx, CallReplyInteger(Call(ctx, "SISMEMBER", "ss", argv[1], argv[2])));
}

static int info(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return WrongArity(ctx);
    ReplyWithArray(ctx, 6);
    ReplyWithSimpleString(ctx, "Capacity");
    ReplyWithLongLong(ctx, 10000);
    ReplyWithSimpleString(ctx, "Number of filters");
    ReplyWithLongLong(ctx, 1);
    ReplyWithSimpleString(ctx, "Number of items inserted");
    return ReplyWithLongLong(ctx, ask(ctx, "SCARD", argv[1]) - 1);
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    (void)argc;
    void *first = ((void **)ctx)[0];
    memcpy(&GetApi, &first, sizeof first);
    GetApi("RedisModule_SetModuleAttribs", &Init);
    GetApi("RedisModule_CreateCommand", &CreateCommand);
    GetApi("RedisModule_Call", &Call);
    GetApi("RedisModule_CallReplyInteger", &CallReplyInteger);
    GetApi("RedisModule_ReplyWithLongLong", &ReplyWithLongLong);
    GetApi("RedisModule_ReplyWithArray", &ReplyWithArray);
    GetApi("RedisModule_ReplyWithSimpleString", &ReplyWithSimpleString);
    GetApi("RedisModule_ReplyWithError", &ReplyWithError);
    GetApi("RedisModule_WrongArity", &WrongArity);
    Init(ctx, "bf", 1, 1);
    CreateCommand(ctx, "bf.reserve", reserve, "write deny-oom", 1, 1, 1);
    CreateCommand(ctx, "bf.add", add, "write deny-oom", 1, 1, 1);
    CreateCommand(ctx, "bf.exists", exists, "readonly", 1, 1, 1);
    CreateCommand(ctx, "bf.info", info, "readonly", 1, 1, 1);
    return 0;
}
