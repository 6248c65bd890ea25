"""Small files in the form of TTL."""


def write(folder, text, name="data.txt"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PRETRAIN = "0,0,0,10,11,12\n0,10,0,11,12,13\n\n0,0,0,10,11,12\n0,0,0,0,0,0007\n0,0,0,0,9,8\r\n"


AGE = "0,0,0,0,9,8,,3\n0,0,0,10,11,12,,1\n\n10,11,12,,2\n0,10,0,11,12,13,,3\n"


CLICK = "0,10,0,11,12,13,,501,500\n0,0,0,0,0,7,,500\n"


def ttl_files(folder, pretrain=PRETRAIN, age=AGE, click=CLICK):
    texts = {
        "original_desen_age.csv": age,
        "original_desen_finetune_click_nouserID.csv": click,
        "original_desen_pretrain.csv": pretrain,
    }
    return [write(folder, text, name) for name, text in texts.items() if text is not None]
